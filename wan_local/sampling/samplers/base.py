"""What all samplers share: the schedule, and steps that must be taken in order."""

from __future__ import annotations

import math

from torch import Tensor

from ..schedule import Schedule


class Sampler:
    """Walks the latents down a schedule, one velocity at a time.

    A sampler keeps its own step counter: whole timesteps repeat in long schedules, so they can't tell a step. A run
    starts over at ``i = 0``; any other step must follow the one before it.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._expected = 0

    @property
    def num_steps(self) -> int:
        return self.schedule.num_steps

    @property
    def sigmas(self) -> tuple[float, ...]:
        """``N + 1`` noise levels, the last one 0."""
        return self.schedule.sigmas

    @property
    def timesteps(self) -> tuple[float, ...]:
        """``N`` timesteps, what the model is told."""
        return self.schedule.timesteps

    def step(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        """From noise level ``sigmas[i]`` to ``sigmas[i + 1]``.

        Args:
            latents: ``[B, C, T, h, w]`` float32 at ``sigmas[i]``.
            velocity: the model's ``noise - x0`` there, same shape.
            i: step index, 0 to ``num_steps - 1``.

        Returns:
            latents at ``sigmas[i + 1]``; after the last step the finished, clean latents.
        """
        if i == 0:
            self.restart()
        elif i != self._expected:
            raise ValueError(f"step {i} asked for, but step {self._expected} comes next")
        self._expected = i + 1
        return self._step(latents, velocity, i)

    def restart(self) -> None:
        """Forget the run before."""

    def _step(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say how to step")  # a sampler overrides this


def log_snr_half(sigma: float) -> float:
    """``lambda = log((1 - sigma) / sigma)``, the time in which the solvers' equation is linear."""
    if sigma <= 0:
        return math.inf
    return math.log1p(-sigma) - math.log(sigma) if sigma < 1 else -math.inf
