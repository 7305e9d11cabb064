"""CFG-Zero*: uncond is scaled to where it comes closest to cond before it is taken away, and the run begins at rest.

Fan et al., arXiv 2503.18886 (WeichenFan/CFG-Zero-star). Per clip, with the scalar product over all of it:

    a = <cond, uncond> / |uncond|^2,    velocity = a * uncond + guidance * (cond - a * uncond)

Early velocities are worse than none, so in the first steps there is none: 4 percent, 2 of 50.
"""

from __future__ import annotations

from torch import Tensor

AT_REST = 0.04  # of the steps
TINY = 1e-8


def combine_scaled(positive: Tensor, negative: Tensor, guidance: float) -> Tensor:
    """The guided velocity of ``[B, C, T, h, w]`` under the prompt and under the negative prompt."""
    flat, other = positive.flatten(1), negative.flatten(1)
    fit = (flat * other).sum(1) / (other.square().sum(1) + TINY)
    scaled = negative * fit.view(-1, *(1,) * (positive.ndim - 1))
    return scaled + guidance * (positive - scaled)


def steps_at_rest(steps: int) -> int:
    """How many of a run do nothing."""
    return round(AT_REST * steps)
