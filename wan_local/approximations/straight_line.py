"""A velocity in place of a forward: on the straight line through the last two, over sigma.

Taylor's first order, as TaylorSeer has it (arXiv 2503.06923) for features; here for the velocity, of which two points
are 38 MB at 1280x720. On steps in the middle of the schedule it comes closer than the velocity, its difference to the
latents, or the clean estimate of the step before (``tests/wan_local/approximations/test_rules.py``).
"""

from __future__ import annotations

from torch import Tensor

from .window import POINTS


class StraightLine:
    """The velocities of the last two forwards of one model, under each of its prompts."""

    def __init__(self) -> None:
        self._points: list[tuple[float, list[Tensor]]] = []  # newest last

    def saw(self, sigma: float, velocities: list[Tensor]) -> None:
        """What a forward gave at ``sigma``; under another number of prompts than before the line begins anew."""
        if self._points and len(self._points[-1][1]) != len(velocities):
            self._points.clear()
        self._points = [*self._points[1 - POINTS :], (sigma, velocities)]

    def at(self, sigma: float, count: int) -> list[Tensor] | None:
        """The velocities at ``sigma`` under ``count`` prompts; None without two points."""
        if len(self._points) < POINTS or len(self._points[-1][1]) != count:
            return None
        (before, older), (last, newer) = self._points
        along = (sigma - last) / (last - before)
        return [new + along * (new - old) for old, new in zip(older, newer, strict=True)]
