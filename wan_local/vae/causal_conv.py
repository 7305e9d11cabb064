"""Convolution over time that never looks ahead.

Official: ``CausalConv3d`` in Wan-Video/Wan2.1 ``wan/modules/vae.py``. There the class pads space and time in one
copy; here the convolution pads space itself and only the missing frames of history are put in front.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stream import Stream


def causal_conv(conv: Any, x: Tensor, stream: Stream | None) -> Tensor:
    """Apply a 3-D convolution of odd temporal size with its history in front.

    Args:
        conv: convolution with temporal kernel ``k``, stride 1 and no temporal padding of its own.
        x: ``[B, C, T, H, W]``.
        stream: memory of the frames before ``x``, or None if ``x`` starts the clip and is all of it.

    Returns:
        ``[B, C', T, H, W]``; frame t depends on frames ``t-k+1 .. t``, zeros before the clip.
    """
    reach = conv.kernel_size[0] - 1  # frames of history one output frame needs
    if reach == 0:
        return conv(x)
    past = stream.past(conv) if stream is not None else None
    if past is None and x.shape[2] == 1 and type(conv) is nn.Conv3d:
        # A clip's first frame has only zeros behind it: one temporal tap instead of three.
        # Only for torch's own class: others (a host's offloading ones) own the way to their weights.
        if stream is not None:
            stream.remember(conv, F.pad(x, (0, 0, 0, 0, reach - 1, 0)))
        frame = F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, conv.stride[1:], conv.padding[1:])
        return frame.unsqueeze(2)
    if past is None:
        x = F.pad(x, (0, 0, 0, 0, reach, 0))
    else:
        x = torch.cat((past, x), dim=2)
    if stream is not None:
        stream.remember(conv, x[:, :, -reach:])
    return conv(x)
