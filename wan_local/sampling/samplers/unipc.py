"""UniPC, Zhao et al. 2023 (arXiv 2302.04867): a multistep predictor, corrected when the next velocity is known.

Official: ``FlowUniPCMultistepScheduler`` in Wan-Video/Wan2.1 ``wan/utils/fm_solvers_unipc.py`` as its pipelines use it:
order 2, B(h) = exp(h) - 1 ("bh2"), predicting the clean latents, the first and the last step of first order, correction
from the second step on. It is not the solver of the same name in diffusers, whose schedule differs.

With lambda = log((1 - sigma) / sigma), a step of h from s to t and m(s) the clean estimate at s:
    base    = sigma_t / sigma_s * x - alpha_t * (exp(-h) - 1) * m(s)
    predict = base - alpha_t * (exp(-h) - 1) * D / 2,   D = (m(s-1) - m(s)) / r,   r = (lambda_{s-1} - lambda_s) / h
    correct = base - alpha_t * (exp(-h) - 1) * (rho_1 * D + rho_2 * (m(t) - m(s)))
"""

from __future__ import annotations

import math

from torch import Tensor

from ..schedule import make_schedule, round_to_float32
from .base import Sampler, log_snr_half

NAME = "unipc"
HIGHEST = round_to_float32(0.999)  # the official schedule starts one of its 1000 training levels below pure noise


class UniPC(Sampler):
    """The sampler the released model was published with.

    Args:
        num_steps: steps of the run.
        shift: of the schedule, applied once.
    """

    def __init__(self, num_steps: int, shift: float) -> None:
        super().__init__(make_schedule(num_steps, shift, highest=HIGHEST, whole_timesteps=True))
        self.restart()

    def restart(self) -> None:
        self._x0s: list[Tensor] = []  # clean estimates of the steps before, newest first, at most two
        self._start: Tensor | None = None  # corrected latents that the last prediction started from
        self._order = 0  # of the last prediction; its correction uses the same

    def _step(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        x0 = latents - self.sigmas[i] * velocity
        if self._start is not None:
            # The estimate at this level stays the one of the uncorrected latents: the model is not asked again.
            latents = self._correct(x0, i)
        self._x0s = [x0, *self._x0s[:1]]
        self._order = min(2, len(self._x0s), self.num_steps - i)
        self._start = latents
        return self._predict(latents, i)

    def _predict(self, latents: Tensor, i: int) -> Tensor:
        base, weight = self._base(latents, i)
        if self._order == 1:
            return base
        return base + 0.5 * weight * self._slope(i)

    def _correct(self, x0: Tensor, i: int) -> Tensor:
        assert self._start is not None
        base, weight = self._base(self._start, i - 1)
        change = x0 - self._x0s[0]
        if self._order == 1:
            return base + 0.5 * weight * change
        rho_slope, rho_change = self._corrector_weights(i - 1)
        return base + weight * (rho_slope * self._slope(i - 1) + rho_change * change)

    def _base(self, latents: Tensor, i: int) -> tuple[Tensor, float]:
        """First-order step from level ``i``, and ``-alpha_t * (exp(-h) - 1)``, the weight of the estimates."""
        sigma, target = self.sigmas[i], self.sigmas[i + 1]
        weight = -(1 - target) * math.expm1(-self._h(i))
        return (target / sigma) * latents + weight * self._x0s[0], weight

    def _slope(self, i: int) -> Tensor:
        return (self._x0s[1] - self._x0s[0]) / self._ratio(i)

    def _h(self, i: int) -> float:
        return log_snr_half(self.sigmas[i + 1]) - log_snr_half(self.sigmas[i])

    def _ratio(self, i: int) -> float:
        return -self._h(i - 1) / self._h(i)

    def _corrector_weights(self, i: int) -> tuple[float, float]:
        """Solve ``[[1, 1], [r, 1]] rho = b`` with ``b_k = k! * phi_{k+1}(-h) * (-h) / (exp(-h) - 1)``."""
        h, ratio = -self._h(i), self._ratio(i)
        first = math.expm1(h) / h - 1
        second = first / h - 0.5
        b1, b2 = first / math.expm1(h), 2 * second / math.expm1(h)
        rho_slope = (b1 - b2) / (1 - ratio)
        return rho_slope, b1 - rho_slope
