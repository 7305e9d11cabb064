"""EasyCache: steps are skipped while the latents have moved so little that the velocity can't have changed much.

Zhou et al., arXiv 2507.02860, as ComfyUI's node of that name has it, but for its window: ``window.py``. With x the
latents and v the velocity under the prompt at the last forward, x' and v' at the one before it:

    k = mean |v - v'| / mean |x - x'|         how much the velocity changes with the latents
    e = k * mean |now - x| / mean |v|         expected change since, added up over the steps without a forward

A step is skipped while the sum is below the threshold; its velocity is then what the latents are plus ``v - x``.
"""

from __future__ import annotations

from torch import Tensor


class EasyCache:
    """What one model of a run gave last, and how far that carries.

    Args:
        threshold: of the expected change that adds up.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._latents: Tensor | None = None
        self._velocities: list[Tensor] = []
        self._rate: float | None = None
        self._error = 0.0

    def saw(self, latents: Tensor, velocities: list[Tensor]) -> None:
        """What a forward gave for ``latents``; under another number of prompts than before it begins anew."""
        if self._latents is not None and len(self._velocities) == len(velocities):
            moved = _mean(latents - self._latents)
            self._rate = _mean(velocities[0] - self._velocities[0]) / moved if moved else None
        else:
            self._rate = None
        self._latents, self._velocities, self._error = latents, velocities, 0.0

    def guess(self, latents: Tensor, count: int) -> list[Tensor] | None:
        """The velocities under ``count`` prompts in place of a forward; None where one is due."""
        if self._rate is None or self._latents is None or len(self._velocities) != count:
            return None
        self._error += self._rate * _mean(latents - self._latents) / max(_mean(self._velocities[0]), TINY)
        if not self._error < self._threshold:  # NaN is due, too
            return None
        return [latents + (velocity - self._latents) for velocity in self._velocities]


TINY = 1e-12


def _mean(difference: Tensor) -> float:
    return difference.abs().mean().item()
