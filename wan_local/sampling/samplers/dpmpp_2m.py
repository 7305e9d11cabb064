"""DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095): second order, one look at the model a step.

Official: ``FlowDPMSolverMultistepScheduler`` in Wan-Video/Wan2.1 ``wan/utils/fm_solvers.py`` with
``get_sampling_sigmas`` (midpoint rule, the first and the last step of first order).
"""

from __future__ import annotations

import math

from torch import Tensor

from ..schedule import make_schedule
from .base import Sampler, log_snr_half

NAME = "dpm++"


class DPMpp2M(Sampler):
    """Extrapolates the clean estimate from the last two steps.

    Args:
        num_steps: steps of the run.
        shift: of the schedule.
    """

    def __init__(self, num_steps: int, shift: float) -> None:
        super().__init__(make_schedule(num_steps, shift, whole_timesteps=True))
        self._last_x0: Tensor | None = None

    def restart(self) -> None:
        self._last_x0 = None

    def _step(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        sigma, target = self.sigmas[i], self.sigmas[i + 1]
        x0 = latents - sigma * velocity
        estimate = x0
        if self._last_x0 is not None and i < self.num_steps - 1:
            here = log_snr_half(sigma)
            h, h_before = log_snr_half(target) - here, here - log_snr_half(self.sigmas[i - 1])
            if math.isfinite(h_before):  # from pure noise the step was infinitely long: nothing to extrapolate
                estimate = x0 + (0.5 * h / h_before) * (x0 - self._last_x0)
        self._last_x0 = x0
        # x' = (sigma'/sigma) x - alpha' (exp(-h) - 1) x0, with exp(-h) = (sigma' alpha) / (alpha' sigma)
        return (target / sigma) * latents + (1 - target - target * (1 - sigma) / sigma) * estimate
