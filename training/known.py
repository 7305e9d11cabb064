"""Which frames of a clip the model is given: mostly the first and the last, now and then something else.

A model that has only ever seen first and last frames ignores an image in the middle. So some clips have one end
alone, some have up to three more frames at multiples of four, whose latent frames end with them as the last one's
does, and some begin with five or nine frames in a row, as a clip that goes on from another.
"""

from __future__ import annotations

import random

from wan_local.shapes import TEMPORAL_STRIDE

BOTH_ENDS, MIDDLE, FIRST_ALONE, LAST_ALONE, START = "both ends", "middle", "first alone", "last alone", "start"
SHARES = {BOTH_ENDS: 0.6, MIDDLE: 0.2, FIRST_ALONE: 0.06, LAST_ALONE: 0.06, START: 0.08}
STARTS = (5, 9)  # how many frames in a row a clip may begin with
MOST_MIDDLE = 3


def random_known(rng: random.Random, frames: int) -> tuple[int, ...]:
    """Frames that are given, in order."""
    last = frames - 1
    kind = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    if kind == FIRST_ALONE:
        return (0,)
    if kind == LAST_ALONE:
        return (last,)
    if kind == START:
        start = range(min(rng.choice(STARTS), last))
        return (*start, last) if rng.random() < 0.5 else tuple(start)
    middles = range(TEMPORAL_STRIDE, last, TEMPORAL_STRIDE)
    if kind == MIDDLE and middles:
        chosen = rng.sample(middles, rng.randint(1, min(MOST_MIDDLE, len(middles))))
        return (0, *sorted(chosen), last)
    return (0, last)
