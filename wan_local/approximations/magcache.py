"""MagCache: how far the size of what the blocks add changes from step to step, measured once, says which steps to skip.

Ma et al., arXiv 2506.09045. The published ratios belong to 40 steps at shift 5; here they are a curve over sigma, which
any schedule reads off. What they give is a list of steps, known before the run. In place of a skipped forward stands
the straight line through the last two, and not what the blocks added last, as published: that is 1.5 GB a prompt at
1280x720.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from ..sampling.schedule import make_schedule
from .window import Window

# Under the prompt, from step to step. Source: Zehong-Ma/MagCache MagCache4Wan2.1/magcache_generate.py (I2V, 720P) and
# MagCache4Wan2.2/magcache_generate.py (I2V-A14B; the small one is the change of expert).
WAN21 = (
    0.99428, 0.98588, 0.98273, 0.99018, 0.98911, 0.98646, 0.99454, 0.9891, 0.99124, 0.99102,
    0.99215, 0.99515, 0.99576, 0.99068, 0.99097, 0.99166, 0.99041, 0.99201, 0.99101, 0.98599,
    0.98845, 0.98848, 0.98862, 0.98718, 0.98497, 0.98264, 0.98389, 0.97938, 0.97535, 0.97498,
    0.973, 0.96827, 0.96261, 0.95335, 0.94649, 0.93397, 0.91636, 0.89088, 0.8679,
)  # fmt: skip
WAN22 = (
    0.99191, 0.99356, 0.99326, 0.99251, 0.99393, 0.9943, 0.99276, 0.99389, 0.99274, 0.99316,
    0.99379, 0.99268, 0.99222, 0.99175, 0.91076, 0.98931, 0.99087, 0.98852, 0.98895, 0.98806,
    0.9871, 0.98613, 0.98434, 0.983, 0.98185, 0.98131, 0.9783, 0.97619, 0.97264, 0.97088,
    0.96568, 0.96045, 0.95322, 0.94579, 0.93297, 0.91699, 0.89174, 0.8541, 0.79823,
)  # fmt: skip
MEASURED_SHIFT = 5.0


def ratios_on(sigmas: Sequence[float], measured: Sequence[float]) -> list[float]:
    """For each step the size of what the blocks add over that of the step before; 1 for the first.

    Args:
        sigmas: N + 1 noise levels of a run.
        measured: from step to step of a run at :data:`MEASURED_SHIFT`.
    """
    places = make_schedule(len(measured) + 1, MEASURED_SHIFT, whole_timesteps=False).sigmas[:-1]
    sizes = list(accumulate(map(math.log, measured), initial=0.0))  # log, over the first
    levels = [_read_off(sigma, places[::-1], sizes[::-1]) for sigma in sigmas[:-1]]
    return [1.0, *(math.exp(after - before) for before, after in zip(levels, levels[1:], strict=False))]


def magcache(
    ratios: Sequence[float], window: Window, models: Sequence[object], threshold: float, in_a_row: int
) -> frozenset[int]:
    """The steps to skip.

    Args:
        ratios: of :func:`ratios_on`.
        window: for each step whether it may be skipped.
        models: as for :func:`~.window.after_starts`; with each the error begins anew.
        threshold: of the error that adds up over skipped steps.
        in_a_row: most steps that are skipped one after the other.
    """
    skipped: set[int] = set()
    ratio, error, count, before = 1.0, 0.0, 0, None
    for step, (may, model) in enumerate(zip(window, models, strict=True)):
        same, before = model == before, model
        if may and same:
            ratio *= ratios[step]
            error += abs(1 - ratio)
            count += 1
            if error < threshold and count <= in_a_row:
                skipped.add(step)
                continue
        ratio, error, count = 1.0, 0.0, 0
    return frozenset(skipped)


def _read_off(x: float, places: Sequence[float], values: Sequence[float]) -> float:
    """A curve through points of rising ``places``, level beyond them."""
    if x <= places[0]:
        return values[0]
    if x >= places[-1]:
        return values[-1]
    right = bisect_left(places, x)
    share = (x - places[right - 1]) / (places[right] - places[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
