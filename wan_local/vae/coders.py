"""Encoder and decoder of the Wan-VAE: the order of the blocks, and nothing else.

Official: ``Encoder3d`` and ``Decoder3d`` in Wan-Video/Wan2.1 ``wan/modules/vae.py``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig
from ..operations import Convolutions
from .blocks import AttentionBlock, Downsample, ResidualBlock, Upsample
from .causal_conv import causal_conv
from .layout import as_images, as_video
from .norm import ChannelNorm
from .stream import Stream

RGB = 3


def _middle(dim: int, operations: Convolutions) -> nn.ModuleList:
    return nn.ModuleList(
        [ResidualBlock(dim, dim, operations), AttentionBlock(dim, operations), ResidualBlock(dim, dim, operations)]
    )


def _head(dim: int, out_dim: int, operations: Convolutions) -> nn.ModuleDict:
    # Keys as in the official nn.Sequential, whose place 1 is the SiLU.
    return nn.ModuleDict({"0": ChannelNorm(dim, 3), "2": operations.Conv3d(dim, out_dim, 3, padding=(0, 1, 1))})


def _run_head(head: nn.ModuleDict, x: Tensor, stream: Stream | None) -> Tensor:
    return causal_conv(head["2"], head["0"](x), stream, silu=True)


def _spread(x: Tensor, upscale: int) -> Tensor:
    """``[B, 3*n*n, F, H, W]`` to ``[B, 3, F, n*H, n*W]``: channels that are the ``n`` x ``n`` neighbours of a pixel."""
    return as_video(F.pixel_shuffle(as_images(x), upscale), x.shape[2]) if upscale > 1 else x


class Encoder(nn.Module):
    """``[B, 3, F, H, W]`` to the moments ``[B, 2*z_dim, T, h, w]`` before ``conv1``."""

    def __init__(self, config: VAEConfig, operations: Convolutions) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in config.dim_mult]
        self.conv1 = operations.Conv3d(RGB, config.dim, 3, padding=(0, 1, 1))
        layers: list[nn.Module] = []
        in_dim = config.dim
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                layers.append(ResidualBlock(in_dim, width, operations))
                in_dim = width
            if level < len(widths) - 1:
                layers.append(Downsample(width, config.temporal_downsample[level], operations))
        self.downsamples = nn.ModuleList(layers)
        self.middle = _middle(in_dim, operations)
        self.head = _head(in_dim, config.z_dim * 2, operations)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        x = causal_conv(self.conv1, x, stream)
        for layer in self.downsamples:
            x = layer(x, stream)
        for layer in self.middle:
            x = layer(x, stream)
        return _run_head(self.head, x, stream)


class Decoder(nn.Module):
    """``[B, z_dim, T, h, w]`` (after ``conv2``) to ``[B, 3, F, H, W]``, of ``config.output_stride`` pixels a cell."""

    def __init__(self, config: VAEConfig, operations: Convolutions) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in reversed(config.dim_mult)]  # coarsest first
        temporal = config.temporal_downsample[::-1]
        self.conv1 = operations.Conv3d(config.z_dim, widths[0], 3, padding=(0, 1, 1))
        self.middle = _middle(widths[0], operations)
        layers: list[nn.Module] = []
        in_dim = widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks + 1):
                layers.append(ResidualBlock(in_dim, width, operations))
                in_dim = width
            if level < len(widths) - 1:
                layers.append(Upsample(width, temporal[level], operations))
                in_dim = width // 2
        self.upsamples = nn.ModuleList(layers)
        self.upscale = config.upscale
        self.head = _head(in_dim, RGB * config.upscale**2, operations)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        x = causal_conv(self.conv1, x, stream)
        for layer in self.middle:
            x = layer(x, stream)
        for layer in self.upsamples:
            x = layer(x, stream)
        return _spread(_run_head(self.head, x, stream), self.upscale)
