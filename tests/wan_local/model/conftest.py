"""Oracles for the transformer, none of which shares code with it.

``Lab`` builds ours and diffusers' model on the same weights through a map of names written by hand here, and
``reference_block`` is one block in float64, written from the published formulas.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.nn import functional

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer

# diffusers name -> official name, by whole prefix. Written from the two sources, not from the library.
TOP = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}
ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
BLOCK = {
    **{f"attn1.{theirs}": f"self_attn.{ours}" for theirs, ours in ATTENTION.items()},
    **{f"attn2.{theirs}": f"cross_attn.{ours}" for theirs, ours in ATTENTION.items()},
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
BARE = {
    "scale_shift_table": "head.modulation",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
}


def official_block_name(name: str) -> str:
    if name == "scale_shift_table":
        return "modulation"
    stem, _, kind = name.rpartition(".")
    return f"{BLOCK[stem]}.{kind}"


def official_name(name: str) -> str:
    if name in BARE:
        return BARE[name]
    inside = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if inside:
        return f"blocks.{inside[1]}.{official_block_name(inside[2])}"
    stem, _, kind = name.rpartition(".")
    return f"{TOP[stem]}.{kind}"


def sharpen(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Weights so large that every part matters: norms away from 1, biases and modulation from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(generator=generator)
            if parameter.ndim == 1:
                is_gain = "norm" in name and name.endswith("weight")
                parameter.mul_(0.3).add_(1) if is_gain else parameter.mul_(0.2)
            elif name.endswith(("scale_shift_table", "modulation", "pos_embed", "emb_pos")):
                parameter.mul_(0.5)
            else:
                parameter.mul_(1.5 / parameter[0].numel() ** 0.5)
    return module


def tiny(kind: str, **sizes: int) -> TransformerConfig:
    """A toy config: "flf" has image branch and positions, "i2v" the branch alone, "t2v" neither."""
    kinds = {
        "flf": {"in_dim": 36, "image_dim": 40, "image_tokens": 14},
        "i2v": {"in_dim": 36, "image_dim": 40, "image_tokens": 0},
        "t2v": {"in_dim": 16, "image_dim": 0, "image_tokens": 0},
    }
    base = {"dim": 96, "ffn_dim": 160, "num_heads": 3, "num_layers": 3, "text_dim": 48, "freq_dim": 64}
    return TransformerConfig(**{**base, **kinds[kind], **sizes})


def theirs_like(config: TransformerConfig) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_dim,
        out_channels=config.out_dim,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        image_dim=config.image_dim or None,
        added_kv_proj_dim=config.dim if config.image_dim else None,
        pos_embed_seq_len=config.image_tokens or None,
    )


class ExactSinusoid(torch.nn.Module):
    """The timestep's sinusoid in float64, as the official code has it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.half = dim // 2

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        steps = [[float(t) / 10000 ** (j / self.half) for j in range(self.half)] for t in timestep]
        angle = torch.tensor(steps, dtype=torch.float64)
        return torch.cat((angle.cos(), angle.sin()), dim=1).float()


def pair(config: TransformerConfig, *, exact_time: bool = True) -> tuple[WanTransformer, WanTransformer3DModel]:
    """Ours and diffusers' on the same sharp weights.

    diffusers makes the sinusoid in float32, off by up to 3e-5 at timestep 999, which alone can bring its
    velocity 1e-5 away from the official one. ``exact_time`` gives it the exact one, to measure all the rest.
    """
    theirs = sharpen(theirs_like(config)).eval()
    if exact_time:
        theirs.condition_embedder.timesteps_proj = ExactSinusoid(config.freq_dim)
    ours = WanTransformer(config).eval()
    ours.load_state_dict({official_name(name): value for name, value in theirs.state_dict().items()})
    return ours, theirs


def build(config: TransformerConfig, seed: int = 1) -> WanTransformer:
    return sharpen(WanTransformer(config), seed).eval()


def inputs(config: TransformerConfig, *, batch=1, size=(2, 4, 6), text_rows=512, seed=7) -> SimpleNamespace:
    """Random inputs; image embeddings of both images in one, a sample."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    image = randn(batch, config.image_tokens or 7, config.image_dim) if config.image_dim else None
    return SimpleNamespace(
        latents=randn(batch, config.in_dim, *size),
        timestep=torch.tensor([999.0, 504.0, 245.0, 12.0])[:batch],
        text=randn(batch, text_rows, config.text_dim),
        image=image,
    )


def ask(model: WanTransformer, given: SimpleNamespace) -> torch.Tensor:
    return model(given.latents, given.timestep, given.text, given.image)


def ask_theirs(model: WanTransformer3DModel, given: SimpleNamespace, dtype=torch.float32) -> torch.Tensor:
    image = given.image
    if image is not None:
        if model.config.pos_embed_seq_len:  # it takes every image as a sample of its own
            image = image.reshape(2 * image.shape[0], -1, image.shape[2])
        image = image.to(dtype)
    return model(given.latents.to(dtype), given.timestep, given.text.to(dtype), image, return_dict=False)[0]


def errors(got: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """(largest difference over largest value, relative L2)."""
    got, expected = got.detach().double(), expected.detach().double()
    difference = got - expected
    return (difference.abs().max() / expected.abs().max()).item(), (difference.norm() / expected.norm()).item()


def angles(grid: tuple[int, int, int], head_dim: int) -> torch.Tensor:
    """Rotary angles [L, K / 2] in float64, token by token."""
    pairs = head_dim // 2
    spatial = pairs // 3
    rows = []
    for t in range(grid[0]):
        for h in range(grid[1]):
            for w in range(grid[2]):
                row = []
                for position, count in ((t, pairs - 2 * spatial), (h, spatial), (w, spatial)):
                    row += [position / 10000 ** (2 * j / (2 * count)) for j in range(count)]
                rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """x [B, L, N, K] turned by angles [L, K / 2], in float64 sines and cosines."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def reference_block(block, x, time, text, image, turn, *, eps=1e-6, rotate_first=False, order=range(6)):
    """One block in float64; ``rotate_first`` and ``order`` make the wrong ones the tests must tell apart."""
    weight = {name: value.detach().double() for name, value in block.state_dict().items()}
    heads = block.self_attn.num_heads
    x, time, text = x.double(), time.double(), text.double()

    def linear(name, value):
        return value @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

    def rms(name, value):
        return value / (value.square().mean(-1, keepdim=True) + eps).sqrt() * weight[f"{name}.weight"]

    def attend(q, k, v):
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def turned(value):
        return rotate(value.unflatten(-1, (heads, -1)), turn).flatten(2)

    def query_key(part, value):
        q, k = linear(f"self_attn.{part}", value), f"self_attn.norm_{part}"
        return rms(k, turned(q)) if rotate_first else turned(rms(k, q))

    table = weight["modulation"] + time
    shift, scale, gate, shift2, scale2, gate2 = (table[:, i, None] for i in order)
    normed = functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift
    mixed = attend(query_key("q", normed), query_key("k", normed), linear("self_attn.v", normed))
    x = x + linear("self_attn.o", mixed) * gate
    normed = functional.layer_norm(x, x.shape[-1:], weight["norm3.weight"], weight["norm3.bias"], eps)
    q = rms("cross_attn.norm_q", linear("cross_attn.q", normed))
    k = rms("cross_attn.norm_k", linear("cross_attn.k", text))
    mixed = attend(q, k, linear("cross_attn.v", text))
    if image is not None:
        image = image.double()
        k = rms("cross_attn.norm_k_img", linear("cross_attn.k_img", image))
        mixed = mixed + attend(q, k, linear("cross_attn.v_img", image))
    x = x + linear("cross_attn.o", mixed)
    normed = functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale2) + shift2
    hidden = functional.gelu(linear("ffn.0", normed), approximate="tanh")
    return x + linear("ffn.2", hidden) * gate2


@pytest.fixture
def lab() -> SimpleNamespace:
    """The helpers above: importlib mode gives test files no other way to share them."""
    return SimpleNamespace(
        tiny=tiny,
        pair=pair,
        build=build,
        sharpen=sharpen,
        theirs_like=theirs_like,
        inputs=inputs,
        ask=ask,
        ask_theirs=ask_theirs,
        errors=errors,
        angles=angles,
        rotate=rotate,
        reference_block=reference_block,
        official_name=official_name,
        official_block_name=official_block_name,
    )
