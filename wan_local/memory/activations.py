"""How much memory calculating takes beside the weights, from what is alive at once in our own code.

The transformer's is a formula, which the tests hold to counted tensors. The VAE's is counted: its real code runs on the
meta device, where tensors have sizes and nothing else. What a kernel takes for itself is not in either.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..config import TransformerConfig, VAEConfig
from ..shapes import Grid, video_frames
from ..vae import WanVAE
from .live import LiveBytes

FLOAT, COMPLEX = 4, 8  # bytes: float32, complex64
RUN = 10  # latents alive in a sampling step outside the transformer: joined input, condition, noise, history
LONGEST = 3  # latent frames after which the VAE's memory grows no more

# By bytes of the dtype: one prompt of 512 rows through umT5-xxl, two pictures through CLIP ViT-H/14 with the output of
# every layer kept. Counted with LiveBytes on two layers of the real width, torch 2.13 and transformers 5.23.
TEXT_WORK = {2: 97_000_000, 4: 193_000_000}
IMAGE_WORK = {2: 62_000_000, 4: 125_000_000}


def transformer_work(config: TransformerConfig, grid: Grid, itemsize: int, unpacked: int = 0) -> int:
    """Peak bytes of one forward of the transformer, batch 1, and of the sampler around it.

    Two moments can be the largest, both with the tokens before the block and those of now alive in float32: the query
    norm of the cross attention (torch's composite RMSNorm raises its input and makes two products of it), or the hidden
    rows of the feed-forward network before and after GELU.

    Args:
        config: sizes.
        grid: of the clip.
        itemsize: bytes of the dtype that linears and attention run in.
        unpacked: bytes of the largest weight that is unpacked for a call; 0 for plain weights.
    """
    tokens, dim, c = grid.tokens, config.dim, itemsize
    raised = FLOAT if c < FLOAT else 0  # a float32 copy, where there is something to raise
    streams = 2 * FLOAT
    self_attention = FLOAT + 6 * c  # input, q, k, v, result, output layer
    norm_of_keys = FLOAT + 3 * c + raised + 2 * FLOAT  # input, q, k; raised, square or product, product
    cross_norm = streams + 2 * c + raised + 2 * FLOAT
    cross_attention = streams + 5 * c  # input, q, text part, image part, their sum
    feed_forward = streams + c + 2 * c * config.ffn_dim / dim
    width = max(self_attention, norm_of_keys, cross_norm, cross_attention, feed_forward)
    rope = tokens * config.head_dim // 2 * COMPLEX
    rows = config.text_len + config.image_tokens
    context = rows * dim * (2 * c + raised + 2 * FLOAT)
    latents = config.out_dim * grid.tokens * 4 * FLOAT * RUN  # 4 cells a token
    return int(tokens * dim * width) + rope + context + latents + unpacked


def vae_encode_work(config: VAEConfig, grid: Grid) -> int:
    """Peak bytes of encoding a clip in float32, the clip itself among them."""
    return _counted(config, grid.height, grid.width, True) + clip_bytes(grid)


def vae_decode_work(config: VAEConfig, grid: Grid) -> int:
    """Peak bytes of decoding a clip in float32; the frames leave as they come."""
    return _counted(config, grid.height, grid.width, False)


def clip_bytes(grid: Grid) -> int:
    """A clip as float32 pixels."""
    return 3 * grid.frames * grid.height * grid.width * FLOAT


@lru_cache(maxsize=32)
def _counted(config: VAEConfig, height: int, width: int, encode: bool) -> int:
    grid = Grid(frames=video_frames(LONGEST), height=height, width=width)
    with torch.device("meta"):
        vae = WanVAE(config).requires_grad_(False)
        video = torch.empty(1, 3, grid.frames, height, width)
        latents = torch.empty(1, config.z_dim, *grid.latent_shape)
    with torch.no_grad(), _Fused(), LiveBytes() as count:
        for _ in vae.encode_stream(video) if encode else vae.decode_stream(latents):
            pass
    return count.peak


class _Fused(TorchFunctionMode):
    """Attention by a kernel that keeps no matrix of all pairs, as on every device but the meta one."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))
