"""Channels-last memory, and clips as images: views of each other there."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """``[B, C, ...]`` with the channels of a pixel side by side in memory; a view where they are already.

    The strides of axes of one element are set too. They address nothing, but torch asks them for the memory that a
    convolution should answer in, and a tensor of one frame is channels-first by some of them.
    """
    pixels = x.movedim(1, -1)
    return pixels.reshape(-1).view(pixels.shape).movedim(-1, 1)


def as_images(x: Tensor) -> Tensor:
    """``[B, C, T, H, W]`` to ``[B*T, C, H, W]``."""
    return channels_last(rearrange(x, "b c t h w -> (b t) c h w"))


def as_video(x: Tensor, frames: int) -> Tensor:
    """``[B*T, C, H, W]`` back to ``[B, C, T, H, W]``."""
    return channels_last(rearrange(x, "(b t) c h w -> b c t h w", t=frames))
