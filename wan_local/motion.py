"""More motion between two images: the condition is pushed away from a cross-fade of both.

Between two given images the released models tend to fade slowly from one to the other. PainterFLF2V
(princepainter/Comfyui-PainterFLF2V, ``painter_flf2v_nodes.py``) adds to the latents of the clip with grey between its
images the fine part of their difference from a straight line between both: structure that a cross-fade would have is
taken away. What is coarse stays, and with it the colour.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

GAIN = 4.0  # of an amplitude's excess over 1
COARSE = 8  # latent cells over which the coarse part is averaged


def amplified(latents: Tensor, known: Collection[int], amplitude: float) -> Tensor:
    """``y + 4 (amplitude - 1) fine(y - line)`` between two latent frames that are given, each pair by itself.

    The published form knows the first and the last image alone; with those it is the same. The formula is linear, so it
    does not matter whether latents are normalised.

    Args:
        latents: of the clip with grey between its images, ``[1, z, T, h, w]``.
        known: latent frames of given images, from 0.
        amplitude: 1 changes nothing.

    Returns:
        ``[1, z, T, h, w]``; given frames and what lies outside the first and the last of them are as they were.
    """
    if amplitude == 1:
        return latents
    result = latents.clone()
    for start, end in pairwise(sorted(known)):
        share = torch.linspace(0.0, 1.0, end - start + 1, device=latents.device)[1:-1].view(1, 1, -1, 1, 1)
        if share.numel():
            between = latents[:, :, start + 1 : end]
            line = latents[:, :, start : start + 1] * (1 - share) + latents[:, :, end : end + 1] * share
            result[:, :, start + 1 : end] += GAIN * (amplitude - 1) * _fine(between - line)
    return result


def _fine(difference: Tensor) -> Tensor:
    """``[1, z, n, h, w]`` without what is coarser than :data:`COARSE` cells."""
    height, width = difference.shape[-2:]
    images = difference[0].transpose(0, 1)  # [n, z, h, w]
    small = F.interpolate(images, size=(max(1, height // COARSE), max(1, width // COARSE)), mode="area")
    coarse = F.interpolate(small, size=(height, width), mode="bilinear")
    return (images - coarse).transpose(0, 1)[None]
