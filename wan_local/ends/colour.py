"""The colours of one frame brought to those of another image of the same scene, by one smooth map.

A map is affine, ``rgb -> rgb + [rgb, 1] M``: enough for brightness, contrast, tint and saturation, and too stiff to
follow what the scene does. It is fitted on means of small blocks, by least squares that give outliers little weight
(Huber's, reweighted; Holland and Welsch 1977), so that a shape that stands elsewhere does not tint the whole. Whether
there is anything to correct at all is asked of blocks that the fit has not seen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels across; smaller on small frames, so that there are
LEAST_BLOCKS = 16  # along the shorter side
PASSES = 5  # of reweighting
NOISE = 0.02  # no residual below it counts as an outlier
OUTLIER = 1.5  # times the median residual
RIDGE, RIDGE_OF_OFFSET = 1e-3, 1e-5  # of the number of blocks
TILES = 8  # across the frame
TESTED = 4  # times a fourth of them is left out
GAIN = 0.9  # what must be left of the unseen residual, at most, for a map to be worth it


def fitted_map(frame: Tensor, image: Tensor) -> Tensor:
    """The map ``[4, 3]`` float64 (red, green, blue, 1 to the change of each) from a frame's colours to an image's.

    Both ``[H, W, 3]`` 0..1. It is zero where no map makes unseen parts of the frame more like the image by a tenth.
    """
    have, want, tile = _blocks(frame, image)
    best = torch.zeros(4, 3, dtype=have.dtype)
    if len(tile.unique()) < TESTED:  # a frame of a few pixels
        return best
    least = _left(have, want, best).sum()
    for fit in (_offset, _affine):
        left = torch.zeros_like(least)
        for unseen in (tile == number for number in range(TESTED)):
            left += _left(have[unseen], want[unseen], fit(have[~unseen], want[~unseen])).sum()
        if left < GAIN * least:
            best, least = fit(have, want), left
    return best


def mapped(frame: Tensor, change: Tensor) -> Tensor:
    """``[H, W, 3]`` with a map applied, not clamped."""
    if not change.any():
        return frame
    matrix = change.to(frame)
    return torch.addmm(matrix[3], frame.reshape(-1, 3), torch.eye(3, device=frame.device) + matrix[:3]).view_as(frame)


def _blocks(frame: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means of blocks ``[N, 3]`` float64 of both, and which quarter of the tiles each block is of."""
    side = max(1, min(BLOCK, min(frame.shape[:2]) // LEAST_BLOCKS))
    pair = torch.stack([frame, image]).movedim(-1, 1)
    pooled = F.avg_pool2d(pair, side, ceil_mode=True)  # [2, 3, h, w]
    h, w = pooled.shape[2:]
    rows = torch.arange(h) * TILES // max(h, TILES) % 2
    columns = torch.arange(w) * TILES // max(w, TILES) % 2
    have, want = pooled.flatten(2).transpose(1, 2).cpu().double()  # few, and not every GPU has float64
    return have, want, (rows[:, None] * 2 + columns[None]).flatten()


def _left(have: Tensor, want: Tensor, change: Tensor) -> Tensor:
    """What a map leaves of the difference, a number a block ``[N]``."""
    return (want - have - _with_one(have) @ change).abs().sum(1)


def _offset(have: Tensor, want: Tensor) -> Tensor:
    change = torch.zeros(4, 3, dtype=have.dtype)
    change[3] = (want - have).median(0).values
    return change


def _affine(have: Tensor, want: Tensor) -> Tensor:
    known, wanted = _with_one(have), want - have
    ridge = torch.tensor([RIDGE] * 3 + [RIDGE_OF_OFFSET], dtype=have.dtype)
    weight = torch.ones(len(have), 1, dtype=have.dtype)
    change = torch.zeros(4, 3, dtype=have.dtype)
    for _ in range(PASSES):
        normal = known.T @ (weight * known) + torch.diag(ridge * weight.sum())
        change = torch.linalg.solve(normal, known.T @ (weight * wanted))
        error = torch.linalg.vector_norm(wanted - known @ change, dim=1, keepdim=True)
        scale = max(NOISE, OUTLIER * error.median().item())
        weight = (scale / error.clamp_min(scale)).clamp_max(1.0)
    return change


def _with_one(colours: Tensor) -> Tensor:
    return F.pad(colours, (0, 1), value=1.0)
