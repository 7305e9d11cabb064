"""Steps of brightness near the ends of a clip that its scene did not make.

A step is a change of ``ln(mean + 0.03)`` over the blocks of a frame that the rest of the clip does not know, and that
all blocks share. Real light does that too. So a step that lies over an end is taken out where the image of that end
says that it is none, and only there; of one that begins and ends before the end no image tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16  # pixels
DARK = 0.03  # added before the logarithm, so that noise in the dark is no light
OUTLIER = 3.0  # times the median deviation
STILL = 0.002  # the least median deviation: a clip whose light does not change at all
NEAR = 8  # frames from an end
VISIBLE = 0.05  # of the logarithm: 5 %
DENIED = 1 / 3  # of a step
FEWEST = 8  # frames, below which nothing can be told from the rest of the clip


def levels_of(frame: Tensor) -> Tensor:
    """``[N, 3]``, the logarithm of the light of each block of a frame ``[H, W, 3]``."""
    blocks = F.avg_pool2d(frame.movedim(-1, 0)[None], min(BLOCK, *frame.shape[:2]))
    return blocks.add(DARK).log().flatten(2)[0].T


def levelled(frame: Tensor, step: Tensor) -> Tensor:
    """``[H, W, 3]`` without the step ``[3]`` of its brightness."""
    return frame if not step.any() else (frame + DARK) * torch.exp(-step).to(frame) - DARK


def steps_to_remove(levels: Tensor, wanted: Mapping[int, Tensor], every: bool) -> Tensor:
    """How much too bright each frame is, ``[F, 3]`` of the logarithm; 0 where nothing is to be done.

    Args:
        levels: ``[F, N, 3]`` of :func:`levels_of`.
        wanted: the same ``[N, 3]`` of the image of frame 0 and of the last, where they were given.
        every: also what no image speaks against.
    """
    count = len(levels)
    steps = torch.zeros(count, 3, dtype=levels.dtype)
    if count < FEWEST:
        return steps
    found = _found(levels)  # [F - 1, 3]
    near = min(NEAR, (count - 1) // 2)
    for end, frames in ((0, range(near - 1, -1, -1)), (count - 1, range(count - near, count))):
        total = torch.zeros(3, dtype=levels.dtype)
        for at in frames:
            total = total - found[at] if end == 0 else total + found[at - 1]
            steps[at] = total
        flashed = [bool(steps[at].abs().max() > VISIBLE) for at in frames]
        over_the_end = 0
        while over_the_end < len(flashed) and flashed[-1 - over_the_end]:
            over_the_end += 1
        image = wanted.get(end)
        denied = every if image is None else _denied(levels[end], steps[end], image)
        for place, at in enumerate(frames):
            kept = not denied if place >= len(flashed) - over_the_end else not every
            if kept or not flashed[place]:
                steps[at] = 0
    return steps


def _found(levels: Tensor) -> Tensor:
    """The steps from each frame to the next that stand out, ``[F - 1, 3]``, and 0 elsewhere."""
    change = levels[1:] - levels[:-1]  # [F - 1, N, 3]
    step = change.median(1).values
    spread = (change - step[:, None]).abs().median(1).values
    usual = step.median(0).values
    own = step - usual
    deviation = own.abs().median(0).values.clamp_min(STILL)
    stands_out = (own.abs() > OUTLIER * deviation) & (spread < own.abs())
    return own * stands_out.any(1, keepdim=True)


def _denied(level: Tensor, step: Tensor, image: Tensor) -> bool:
    """Whether the image of an end lacks the step: by what it asks for, a third of it or more is to be taken back.

    A third and not a half: of a flash that colours which drifted the other way make up for in part, no more is left.
    """
    missing = (image - level).median(0).values
    return bool(-(missing * step).sum() > DENIED * step.square().sum())
