"""Where each pixel of a frame came from in another one nearby: Lucas-Kanade on a pyramid.

Lucas and Kanade 1981, "An iterative image registration technique"; coarse to fine as in Bouguet 2000. Frames here are
``[1, 3, H, W]`` and a flow ``[1, 2, H, W]``, right and down, in pixels of its own size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ENOUGH = 256  # pixels along the shorter side of the finest level; a tenth of its pixel is 0.3 of 720 lines
SMALLEST = 12  # pixels along the shorter side of the coarsest level
ITERATIONS = 3  # a level
WINDOW = 9  # pixels across the box that is averaged over, twice
FLAT = 2e-4  # squared gradient under which nothing is known: about what the noise of a decoder has
STEP = 1.0  # pixels that one iteration moves at most
LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


def flow_between(frame: Tensor, source: Tensor, start: Tensor | None = None) -> Tensor:
    """Flow from ``frame`` to where its pixels lie in ``source``.

    Args:
        frame, source: ``[1, 3, H, W]`` 0..1.
        start: a flow to begin with, such as that of the frame before.
    """
    levels = [(luma(frame), luma(source))]
    while min(levels[-1][0].shape[2:]) >= 2 * SMALLEST:
        levels.append((F.avg_pool2d(levels[-1][0], 2), F.avg_pool2d(levels[-1][1], 2)))
    flow = frame.new_zeros(1, 2, *levels[-1][0].shape[2:]) if start is None else resized(start, levels[-1][0])
    for target, moving in reversed(levels):
        flow = resized(flow, target)
        for _ in range(ITERATIONS):
            flow = flow + _step(target, moving, flow)
    return flow


def warped(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """``image [1, C, H, W]`` fetched from where the flow of its own size says; the edge repeated outside."""
    return F.grid_sample(image, _grid(flow), mode=mode, padding_mode="border", align_corners=False)


def shrunk(frame: Tensor) -> Tensor:
    """``[1, C, h, w]`` for a flow that need not be finer: the shorter side at most 256 pixels."""
    scale = ENOUGH / min(frame.shape[2:])
    if scale >= 1:
        return frame
    size = [max(1, round(side * scale)) for side in frame.shape[2:]]
    return F.interpolate(frame, size=size, mode="bilinear", align_corners=False, antialias=True)


def inside(flow: Tensor) -> Tensor:
    """1 where the flow stays within the frame, else 0. ``[1, 1, H, W]``"""
    return (_grid(flow).abs() <= 1.0).all(-1)[:, None].to(flow)


def resized(flow: Tensor, like: Tensor) -> Tensor:
    """The same flow for frames of the size of ``like [1, C, H, W]``, in its pixels."""
    size = like.shape[2:]
    if flow.shape[2:] == size:
        return flow
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, size=size, mode="bilinear", align_corners=False) * scale


def luma(frame: Tensor) -> Tensor:
    """``[1, 1, H, W]`` of ``[1, 3, H, W]``."""
    return (frame * frame.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _step(target: Tensor, moving: Tensor, flow: Tensor) -> Tensor:
    """What one least squares over each window adds to the flow."""
    here = warped(moving, flow)
    seen = inside(flow)
    right, down = slopes((here + target) / 2)
    late = (target - here) * seen
    products = torch.cat([right * right, down * down, right * down, right * late, down * late], 1) * seen
    xx, yy, xy, xt, yt = _box(_box(products)).split(1, 1)
    xx, yy = xx + FLAT, yy + FLAT
    determinant = xx * yy - xy * xy
    step = torch.cat([(yy * xt - xy * yt) / determinant, (xx * yt - xy * xt) / determinant], 1)
    return step.clamp(-STEP, STEP)


def slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Change a pixel to the right and downwards of ``[1, 1, H, W]``."""
    wide = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2, (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2


def _box(image: Tensor) -> Tensor:
    for size, pad in (((WINDOW, 1), (WINDOW // 2, 0)), ((1, WINDOW), (0, WINDOW // 2))):
        image = F.avg_pool2d(image, size, stride=1, padding=pad, count_include_pad=False)
    return image


def _grid(flow: Tensor) -> Tensor:
    """For ``grid_sample``: ``[1, H, W, 2]``, -1..1 from edge to edge."""
    height, width = flow.shape[2:]
    x = (torch.arange(width, device=flow.device) + 0.5 + flow[:, 0]) * (2 / width) - 1
    y = (torch.arange(height, device=flow.device)[:, None] + 0.5 + flow[:, 1]) * (2 / height) - 1
    return torch.stack([x, y], -1)
