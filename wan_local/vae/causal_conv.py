"""Convolution over time that never looks ahead.

Official: ``CausalConv3d`` in Wan-Video/Wan2.1 ``wan/modules/vae.py``. There the class pads space and time in one
copy; here the convolution pads space itself and only the missing frames of history are put in front.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import winograd
from .onednn import convolve
from .stream import Stream


def causal_conv(conv: Any, x: Tensor, stream: Stream | None, *, silu: bool = False) -> Tensor:
    """Apply a 3-D convolution of odd temporal size with its history in front.

    Args:
        conv: convolution with temporal kernel ``k``, stride 1 and no temporal padding of its own.
        x: ``[B, C, T, H, W]``; with ``silu`` it may be written over.
        stream: memory of the frames before ``x``, or None if ``x`` starts the clip and is all of it.
        silu: whether ``x`` goes through SiLU first.

    Returns:
        ``[B, C', T, H, W]``; frame t depends on frames ``t-k+1 .. t``, zeros before the clip.
    """
    reach = conv.kernel_size[0] - 1  # frames of history one output frame needs
    past = stream.past(conv) if stream is not None else None
    if past is None and x.shape[2] == 1 and type(conv) is nn.Conv3d:
        # A clip's first frame has only zeros behind it: one temporal tap instead of three.
        # Only for torch's own class: others (a host's offloading ones) own the way to their weights.
        x = F.silu(x, inplace=True) if silu else x
        if stream is not None:
            stream.remember(conv, F.pad(x, (0, 0, 0, 0, reach - 1, 0)))
        frame = F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, conv.stride[1:], conv.padding[1:])
        return frame.unsqueeze(2)
    x = with_history(past, x, reach, silu)
    if stream is not None:
        stream.remember(conv, x[:, :, -reach:])
    if winograd.pays(conv, x):
        factors = stream.once(conv, winograd.transformed) if stream is not None else winograd.transformed(conv)
        return winograd.convolve(conv, x, factors)
    return convolve(conv, x)


def with_history(past: Tensor | None, x: Tensor, reach: int, silu: bool = False) -> Tensor:
    """``[B, C, reach + T, H, W]``: the history, zeros if there is none, and SiLU of ``x`` behind it."""
    if torch.is_grad_enabled():
        x = F.silu(x) if silu else x
        return F.pad(x, (0, 0, 0, 0, reach, 0)) if past is None else torch.cat((past, x), dim=2)
    shape = (*x.shape[:2], reach + x.shape[2], *x.shape[3:])
    whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    if past is None:
        whole[:, :, :reach] = 0.0
    else:
        whole[:, :, :reach] = past
    if silu:  # straight to its place, instead of over x and then there
        torch.ops.aten.silu.out(x, out=whole[:, :, reach:])
    else:
        whole[:, :, reach:] = x
    return whole
