"""How fast a sampling step is on this device at one size, where its time goes, and what it could be.

One block of the released model with random weights is timed, and with it what its time is made of. All blocks are
alike, and a guided step goes through them twice, so nothing larger has to be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from . import flops
from .attention import Attend
from .config import TransformerConfig
from .model.blocks import Block, Context
from .model.rope import rope_table
from .shapes import Grid

FORWARDS = 2  # of a step: cond and uncond
SQUARE = 8192  # of the product that shows what the device does at best
ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds and operations of one block, and the best rate of the device.

    Attributes:
        block: seconds of a block.
        attention: seconds of its attention kernels.
        products: seconds of its linear layers.
        best: operations a second of one large square product in the same dtype.
        blocks: that a guided step goes through.
        attention_work: operations of the attention kernels of a block.
        products_work: of its linear layers.
    """

    block: float
    attention: float
    products: float
    best: float
    blocks: int
    attention_work: int
    products_work: int

    @property
    def step(self) -> float:
        """Seconds of a guided step."""
        return self.block * self.blocks

    @property
    def rest(self) -> float:
        """Seconds of a block that are neither: norms, rotation, activation, sums."""
        return max(0.0, self.block - self.attention - self.products)

    @property
    def rate(self) -> float:
        """Operations a second of a whole block."""
        return (self.attention_work + self.products_work) / self.block

    @property
    def share(self) -> float:
        """Of the best rate that this block reaches."""
        return self.rate / self.best


def measure(config: TransformerConfig, grid: Grid, dtype: torch.dtype, device: torch.device, attend: Attend) -> Speed:
    """Time one block at this size.

    Args:
        config: of the transformer.
        grid: of the clip.
        dtype: that linears and attention run in.
        device: where.
        attend: the attention kernel.

    Raises:
        torch.OutOfMemoryError: not even one block fits beside its tokens.
    """
    with torch.inference_mode():
        block, context = _block(config, dtype, device), random_context(config, grid, dtype, device, attend)
        x = torch.randn(1, grid.tokens, config.dim, device=device)
        whole = _seconds(partial(block, x, context), device)
        return Speed(
            block=whole,
            attention=_attention_seconds(config, grid, context),
            products=_products_seconds(block, x.to(dtype), context),
            best=best_rate(dtype, device),
            blocks=FORWARDS * config.num_layers,
            attention_work=flops.block_attention(config, grid),
            products_work=flops.block_products(config, grid),
        )


def _block(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Block:
    with torch.device(device):
        block = Block(config, torch.nn).to(dtype)
    for parameter in block.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
    return block.eval()


def random_context(
    config: TransformerConfig, grid: Grid, dtype: torch.dtype, device: torch.device, attend: Attend
) -> Context:
    """What a block reads besides the tokens of such a clip, random; arguments as for :func:`measure`."""
    noise = partial(torch.randn, device=device)
    places = (grid.latent_frames, grid.latent_height // config.patch_size[1], grid.latent_width // config.patch_size[2])
    return Context(
        time=noise(1, 6, config.dim) * 0.1,
        text=noise(1, config.text_len, config.dim, dtype=dtype),
        image=noise(1, config.image_tokens, config.dim, dtype=dtype) if config.has_image_branch else None,
        rope=rope_table(places, config.head_dim, device),
        dtype=dtype,
        attend=attend,
    )


def _attention_seconds(config: TransformerConfig, grid: Grid, context: Context) -> float:
    heads = (config.num_heads, config.head_dim)
    q = torch.randn(1, grid.tokens, *heads, device=context.rope.device, dtype=context.dtype)
    read = [q] + [rows.unflatten(-1, heads) for rows in (context.text, context.image) if rows is not None]
    return sum(_seconds(partial(context.attend, q, rows, rows), q.device) for rows in read)


def _products_seconds(block: Block, x: Tensor, context: Context) -> float:
    """Every linear layer of a block on as many rows as it sees there."""
    seconds = 0.0
    inside = torch.randn(*x.shape[:2], block.get_parameter("ffn.2.weight").shape[1], device=x.device, dtype=x.dtype)
    for name, layer in block.named_modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        place = name.rsplit(".", 1)[-1]
        if name == "ffn.2":
            rows: Tensor | None = inside
        elif place in ("k_img", "v_img"):
            rows = context.image
        elif name.startswith("cross_attn.") and place in ("k", "v"):
            rows = context.text
        else:
            rows = x
        seconds += 0.0 if rows is None else _seconds(partial(layer, rows), x.device)
    return seconds


def best_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of one large square product."""
    side = SQUARE if device.type != "cpu" else SQUARE // 8
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / _seconds(partial(functional.linear, a, b), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of a few rounds, after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
