"""Convolutions of few numbers on a CPU, by oneDNN all the same.

torch leaves convolutions in float32 to a loop of its own where batch, channels, time and height multiply to 20,480 at
most, however wide they are. Of the Wan-VAE that is the first layer at every usual size, and most layers in small tiles.
Measured on one core of an EPYC 7003: three channels of 480x480 to 96 took 895 ms that way and 417 by oneDNN, 96
channels of 32x32 to 96 took 76 and 23.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

MOST = 20_480  # torch's bound
FEWEST = 1024  # pixels from which on oneDNN was faster by a third or more, at every width


def convolve(conv: Any, x: Tensor) -> Tensor:
    """``conv(x)``, up to rounding; ``x`` is ``[B, C, ..., H, W]``."""
    if not _is_left_out(conv, x):
        return conv(x)
    return torch.mkldnn_convolution(x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups)


def in_plain_float32(conv: nn.Module, x: Tensor) -> bool:
    """Whether this is torch's own layer (others own the way to their weights), on a CPU, in float32 and without
    gradients."""
    return (
        type(conv) in (nn.Conv2d, nn.Conv3d)
        and x.device.type == "cpu"
        and x.dtype == conv.get_parameter("weight").dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _is_left_out(conv: nn.Module, x: Tensor) -> bool:
    """Whether torch would keep it from oneDNN."""
    return (
        in_plain_float32(conv, x)
        and x.shape[0] == 1
        and math.prod(x.shape[:4]) <= MOST
        and math.prod(x.shape[2:]) >= FEWEST
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
    )
