"""Which steps may go without a forward at all: the guard of every way of skipping. By sigma, not by index.

The first steps settle what is where, and the last ones are long: at shift 16 and 50 steps the last five go down from
sigma 0.64, the ten first together from 1.000 to 0.985. A step skipped among the last costs as much as many in the
middle (``docs/speed.md``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FIRST = 1 / 5  # of the steps
FEWEST = 10  # steps of a run: of fewer, as distilled models take, each does too much
LOWEST = 0.65
POINTS = 2  # forwards that a straight line goes through

Window = Sequence[bool]
"""For each step whether it may be skipped."""


def window_of(sigmas: Sequence[float]) -> list[bool]:
    """For each step of a schedule of N + 1 noise levels whether it may be skipped."""
    steps = len(sigmas) - 1
    first = math.ceil(FIRST * steps) if steps >= FEWEST else steps
    return [step >= first and sigmas[step] >= LOWEST for step in range(steps)]


def after_starts(window: Window, models: Sequence[object]) -> list[bool]:
    """The same without the first steps of each model, of which nothing is known yet.

    Args:
        window: of :func:`window_of`.
        models: for each step what it asks: equal for the same model with the same LoRAs on it.
    """
    allowed, since = [], 0
    for step, may in enumerate(window):
        since = since + 1 if step and models[step] == models[step - 1] else 0
        allowed.append(may and since >= POINTS)
    return allowed
