"""Frames of twice the side, convolved: what every upsampling of the Wan-VAE does."""

from __future__ import annotations

from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from .layout import channels_last


def convolve_enlarged(conv: Any, x: Tensor) -> Tensor:
    """Double height and width by repeating pixels, then apply a 3x3 convolution with padding 1.

    Args:
        conv: the convolution.
        x: ``[B, C, ..., H, W]``.

    Returns:
        the images ``[N, C', 2*H, 2*W]`` of all frames, in channels-last memory.
    """
    # Only for torch's own class: others (a host's offloading ones) own the way to their weights.
    return _by_phases(conv, x) if type(conv) is nn.Conv2d else conv(enlarged(x))


def enlarged(x: Tensor) -> Tensor:
    """``[B, C, ..., H, W]`` to images ``[N, C, 2*H, 2*W]`` in channels-last memory, each pixel four times.

    In one copy of our own: torch's nearest neighbours take twice as long in this memory.
    """
    return repeat(x, "b c ... h w -> (b ...) (h i) (w j) c", i=2, j=2).movedim(-1, 1)


def _by_phases(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The same without the enlarged frames, by 4/9 of the multiplications.

    Of three neighbours among repeated pixels two are one and the same, so on even and odd rows and columns the 3x3
    kernel is one of four 2x2 kernels of summed weights. All four are one convolution of four times the channels.
    """
    images = channels_last(x.movedim(1, -3).flatten(0, -4))  # [N, C, H, W]
    height, width = images.shape[-2:]
    weight, bias = _phases(conv.weight).to(conv.weight.dtype), conv.bias  # [2, 2, C', C, 2, 2]
    parts = nn.functional.conv2d(images, weight.flatten(0, 2), None if bias is None else bias.repeat(4), padding=1)
    parts = parts.unflatten(1, (2, 2, -1))  # [N, 2, 2, C', H + 1, W + 1]
    shape = (len(images), conv.out_channels, 2 * height, 2 * width)
    out = torch.empty(shape, dtype=parts.dtype, device=parts.device, memory_format=torch.channels_last)
    for row in range(2):
        for column in range(2):
            out[:, :, row::2, column::2] = parts[:, row, column, :, row : row + height, column : column + width]
    return out


def _phases(weight: Tensor) -> Tensor:
    """``[C', C, 3, 3]`` to the kernels ``[2, 2, C', C, 2, 2]`` of even and odd rows and columns, summed in float32."""
    weight = weight.float()
    first, middle, last = weight.unbind(2)
    rows = torch.stack((torch.stack((first, middle + last), 2), torch.stack((first + middle, last), 2)))
    first, middle, last = rows.unbind(4)  # rows: [2, C', C, 2, 3]
    return torch.stack((torch.stack((first, middle + last), 4), torch.stack((first + middle, last), 4)), 1)
