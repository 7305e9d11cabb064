"""Euler's method: follow the velocity in a straight line to the next noise level. One order, no memory."""

from __future__ import annotations

from torch import Tensor

from ..schedule import make_schedule
from .base import Sampler

NAME = "euler"


class Euler(Sampler):
    """``x' = x + (sigma' - sigma) * velocity``; the model is told the exact timestep, not a whole one.

    Args:
        num_steps: steps of the run.
        shift: of the schedule.
    """

    def __init__(self, num_steps: int, shift: float) -> None:
        super().__init__(make_schedule(num_steps, shift, whole_timesteps=False))

    def _step(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        return latents + (self.sigmas[i + 1] - self.sigmas[i]) * velocity
