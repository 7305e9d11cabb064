"""How much memory calculating takes beside the weights, counted: our own code runs on the meta device, where tensors
have sizes and nothing else.

The one model of it, for the library's plan and for the nodes. What a kernel takes for itself is no tensor and not in
it; :data:`RESERVE` stands for that wherever something is decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..attention.sparse import MIN_TOKENS
from ..config import TransformerConfig, VAEConfig
from ..model import WanTransformer
from ..quantised import packing_of
from ..shapes import SPATIAL_STRIDE, Grid, video_frames
from ..vae import WanVAE
from .live import LiveBytes

RESERVE = 1_500_000_000
"""Bytes of a GPU that are left to what is no tensor of ours: workspaces of cuDNN and cuBLAS, and what the allocator
loses between pieces. A choice, not a measurement."""

FLOAT = 4  # bytes of a float32
RUN = 10  # latents alive in a sampling step outside the transformer: joined input, condition, noise, history
BLOCKS = 2  # of a transformer after which its memory grows no more
LONGEST = 3  # chunks of a clip after which the VAE's memory grows no more; latent frames, where each is a chunk
SIDE = 16  # latent cells: the VAE's memory is in proportion to the area, so a small frame is counted

# By bytes of the dtype: one prompt of 512 tokens through umT5-xxl, two images through CLIP ViT-H/14 with the output of
# every layer kept. Counted with LiveBytes on two layers of the real width, torch 2.13 and transformers 5.23.
TEXT_WORK = {2: 97_000_000, 4: 193_000_000}
IMAGE_WORK = {2: 62_000_000, 4: 125_000_000}

Shape = tuple[int, int, int]
"""``(T, h, w)`` of latents."""


def transformer_work(
    config: TransformerConfig, grid: Grid, itemsize: int, dequantized: int = 0, *, compiled: bool = False
) -> int:
    """Peak bytes of one forward of the transformer, batch 1, and of the sampler around it.

    Args:
        config: sizes.
        grid: of the clip.
        itemsize: bytes of the dtype that linears and attention run in.
        dequantized: bytes of the largest weight that is dequantized for a call; 0 for plain weights.
        compiled: whether blocks are compiled: their tokens are not overwritten, so a second tensor of them is there
            (measured on an H100 at 1280x720: 1.46 GB more, of 1.55).
    """
    latents = RUN * config.out_dim * _cells(grid.latent_shape) * FLOAT
    forward = grid.in_a_forward
    tokens = forward.tokens * config.dim * FLOAT if compiled else 0
    return _forward(config, forward, itemsize) + latents + dequantized + tokens


def sparse_work(config: TransformerConfig, grid: Grid, tau: float) -> int:
    """Bytes that sparse attention takes beside :func:`transformer_work`, on a GPU: q, k and v of its kernel in int8.
    None where tau is 0, or the clip too short for it.

    Reckoned from what the kernel's source says that it does, not measured: means of blocks, scales and lists of blocks,
    which it keeps too, are not in it. Attention is where a forward takes most, so it comes on top in full.
    """
    tokens = grid.in_a_forward.tokens
    return 3 * tokens * config.dim if tau and tokens >= MIN_TOKENS else 0


def vae_encode_work(config: VAEConfig, shape: Shape, itemsize: int = FLOAT) -> int:
    """Peak bytes of encoding to latents of ``shape``, the pixels they come from among them."""
    return _area(shape) * _vae_cell(config, itemsize, True) // SIDE**2 + clip_bytes(shape, itemsize)


def vae_decode_work(config: VAEConfig, shape: Shape, itemsize: int = FLOAT, pace: int = 1) -> int:
    """Peak bytes of decoding latents of ``shape`` in a dtype of ``itemsize``, ``pace`` of them at once; the frames
    leave as they come."""
    return _area(shape) * _vae_cell(config, itemsize, False, pace) // SIDE**2


def clip_bytes(shape: Shape, itemsize: int = FLOAT) -> int:
    """The pixels that latents of ``shape`` stand for."""
    return 3 * video_frames(shape[0]) * _area(shape) * SPATIAL_STRIDE**2 * itemsize


def _cells(shape: Shape) -> int:
    return shape[0] * _area(shape)


def _area(shape: Shape) -> int:
    return shape[1] * shape[2]


@lru_cache(maxsize=64)
def _forward(config: TransformerConfig, grid: Grid, itemsize: int) -> int:
    config = replace(config, num_layers=min(config.num_layers, BLOCKS))
    with _counting() as count, torch.device("meta"):
        model = WanTransformer(config, attend=lambda q, k, v: torch.empty_like(q))
        model = model.to(_dtype(itemsize)).requires_grad_(False)
        latents = torch.empty(1, config.in_dim, *grid.latent_shape)
        timestep, text = torch.empty(1), torch.empty(1, config.text_len, config.text_dim)
        rows = torch.empty(1, config.image_tokens or config.text_len, config.image_dim)
        with count:
            model(latents, timestep, text, rows if config.has_image_branch else None)
    return count.peak


@lru_cache(maxsize=64)
def _vae_cell(config: VAEConfig, itemsize: int, encode: bool, pace: int = 1) -> int:
    """Peak bytes at a frame of ``SIDE`` x ``SIDE`` cells."""
    longest = 1 + (LONGEST - 1) * pace  # latent frames
    frames, pixels = video_frames(longest), SIDE * SPATIAL_STRIDE
    with _counting() as count, torch.device("meta"):
        vae = WanVAE(config).to(_dtype(itemsize)).requires_grad_(False)
        video = torch.empty(1, 3, frames, pixels, pixels, dtype=_dtype(itemsize))
        latents = torch.empty(1, config.z_dim, longest, SIDE, SIDE, dtype=_dtype(itemsize))
        with count:
            for _ in vae.encode_stream(video) if encode else vae.decode_stream(latents, pace):
                pass
    return count.peak


@contextlib.contextmanager
def _counting() -> Iterator[LiveBytes]:
    # In inference mode, where ComfyUI runs nodes, operations made of others are not seen as those others.
    with torch.inference_mode(False), torch.no_grad(), _Kernels():
        yield LiveBytes()


def _dtype(itemsize: int) -> torch.dtype:
    return torch.float32 if itemsize >= FLOAT else torch.bfloat16


class _Kernels(TorchFunctionMode):
    """Attention as one kernel that keeps no matrix of all pairs; on the meta device it is many operations."""

    def __torch_function__(
        self, function: Callable[..., object], types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        if function is functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def dequantized_bytes(transformer: WanTransformer, dtype: torch.dtype) -> int:
    """Bytes of the largest weight of a block in ``dtype``, if any weight is kept as something else; else 0."""
    matrices = [
        (layer, weight)
        for layer in transformer.blocks.modules()
        if isinstance(weight := getattr(layer, "weight", None), torch.Tensor) and weight.ndim > 1
    ]
    other = any(packing_of(layer) is not None or weight.dtype != dtype for layer, weight in matrices)
    return transformer.config.dim * transformer.config.ffn_dim * dtype.itemsize if other else 0
