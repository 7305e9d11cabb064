"""Classifier-free guidance: away from the negative prompt, towards the prompt (Ho and Salimans, arXiv 2207.12598)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ..errors import InputError

Velocity = Callable[[Tensor, float], Tensor]
"""Latents ``[B, C, T, h, w]`` and a timestep 0..1000 to a velocity of the same shape."""


def guided_velocity(positive: Velocity, negative: Velocity, guidance: float) -> Velocity:
    """Combine two views of the model: ``negative + guidance * (positive - negative)``.

    Args:
        positive: velocity under the prompt.
        negative: velocity under the negative prompt, with the same image condition.
        guidance: guidance scale; 1 never calls ``negative``, so a step costs one forward instead of two.

    Raises:
        InputError: ``guidance`` is not a finite number.
    """
    if not math.isfinite(guidance):
        raise InputError(f"guidance={guidance!r} can't be used; give a number such as 5.5, or 1 for none")
    if guidance == 1:
        return positive

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        return combine(positive(latents, timestep), negative(latents, timestep), guidance)

    return velocity


def combine(positive: Tensor, negative: Tensor, guidance: float) -> Tensor:
    """``negative + guidance * (positive - negative)``."""
    return negative + guidance * (positive - negative)


def forwards_of(guidance: float) -> int:
    """How many forwards a step takes under a guidance scale."""
    return 1 if guidance == 1 else 2
