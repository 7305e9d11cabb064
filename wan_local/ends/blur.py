"""Gaussian blur of ``[1, C, H, W]``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALVED_ABOVE = 2.0  # sigma in pixels: a wider blur is done at half the size


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur with ``sigma`` pixels, the edge repeated."""
    if sigma > HALVED_ABOVE:
        small = F.avg_pool2d(image, 2, ceil_mode=True)
        return F.interpolate(blurred(small, sigma / 2), size=image.shape[2:], mode="bilinear", align_corners=False)
    radius = math.ceil(2.5 * sigma)
    at = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    bell = torch.exp(-at.square() / (2 * sigma**2))
    bell = (bell / bell.sum()).view(1, 1, 1, -1)
    flat = image.flatten(0, 1)[:, None]  # [C, 1, H, W]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), bell)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), bell.transpose(2, 3))
    return flat.view_as(image)
