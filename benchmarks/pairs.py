"""Our networks and diffusers' on the same random weights, ready to be timed against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from wan_local import flops
from wan_local.config import TransformerConfig, VAEConfig
from wan_local.model import WanTransformer
from wan_local.shapes import Grid
from wan_local.vae import WanVAE
from wan_local.weights.names import transformer_to_official, vae_to_official

DECODER_LEVEL = 4  # layers of a decoder level in the Wan-VAE


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One piece of work, done by us and by diffusers; ``work`` is in floating-point operations, 0 if not counted."""

    name: str
    ours: Callable[[], torch.Tensor]
    theirs: Callable[[], torch.Tensor]
    work: int = 0


def transformer_pair(config: TransformerConfig, grid: Grid, device: str, dtype: torch.dtype) -> Pair:
    """One forward."""
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=config.num_heads, attention_head_dim=config.head_dim, in_channels=config.in_dim,
        out_channels=config.out_dim, text_dim=config.text_dim, freq_dim=config.freq_dim, ffn_dim=config.ffn_dim,
        num_layers=config.num_layers, image_dim=config.image_dim, added_kv_proj_dim=config.dim,
        pos_embed_seq_len=config.image_tokens,
    ).to(device, dtype).eval()  # fmt: skip
    ours = WanTransformer(config).to(device, dtype).eval()
    ours.load_state_dict({str(transformer_to_official(name)): value for name, value in theirs.state_dict().items()})
    latents = torch.randn(1, config.in_dim, *grid.latent_shape, device=device, dtype=dtype)
    text = torch.randn(1, config.text_len, config.text_dim, device=device, dtype=dtype)
    image = torch.randn(1, config.image_tokens, config.image_dim, device=device, dtype=dtype)
    halves = image.view(2, -1, config.image_dim)  # as diffusers' pipeline gives both images
    timestep = torch.tensor([500.0], device=device)
    return Pair(
        name=f"DiT forward {kind(dtype)}, width {config.dim}, {config.num_layers} blocks, {grid.tokens} tokens",
        ours=lambda: ours(latents, timestep, text, image),
        theirs=lambda: theirs(latents, timestep, text, halves, return_dict=False)[0],
        work=flops.transformer_forward(config, grid),
    )


def vae_pairs(config: VAEConfig, grid: Grid, device: str, dtype: torch.dtype) -> list[Pair]:
    """Encoding and decoding one clip."""
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(base_dim=config.dim).to(device, dtype).eval()
    ours = WanVAE(config).to(device, dtype).eval()
    ours.load_state_dict(
        {str(vae_to_official(name, DECODER_LEVEL)): value for name, value in theirs.state_dict().items()}
    )
    video = torch.rand(1, 3, grid.frames, grid.height, grid.width, device=device, dtype=dtype) * 2 - 1
    latents = torch.randn(1, config.z_dim, *grid.latent_shape, device=device, dtype=dtype)
    size = f"width {config.dim}, {grid.width}x{grid.height}x{grid.frames}"
    return [
        Pair(
            name=f"VAE encode {kind(dtype)}, {size}",
            ours=lambda: ours.encode(video),
            theirs=lambda: theirs.encode(video, return_dict=False)[0].mean,
        ),
        Pair(
            name=f"VAE decode {kind(dtype)}, {size}",
            ours=lambda: ours.decode(latents),
            theirs=lambda: theirs.decode(latents, return_dict=False)[0],
            work=decode_work(config, grid),
        ),
    ]


def decode_work(config: VAEConfig, grid: Grid) -> int:
    """Floating-point operations of decoding one clip, counted by torch on tensors without memory: products and
    convolutions, two for each multiply-add. A kernel counts whole, also where it meets the zeros before the clip."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        AutoencoderKLWan(base_dim=config.dim).eval().decode(torch.empty(1, config.z_dim, *grid.latent_shape))
    return counter.get_total_flops()


def kind(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
