"""Uncond is asked in some steps only; in between, what it took away from cond last time is taken away again.

The difference of the two changes more slowly than either (FasterCache, arXiv 2410.19355; this is its plain form, as
AI-Hypercomputer/maxdiffusion has it for Wan).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class GuidanceReuse:
    """The difference of one model of a run.

    Args:
        every: uncond is asked in every n-th step.
    """

    def __init__(self, every: int) -> None:
        self._every, self._since = every, 0
        self._difference: Tensor | None = None

    def sides(self, ask: Callable[[int], list[Tensor]], count: int, may_reuse: bool) -> list[Tensor]:
        """Cond, and uncond if ``count`` is 2.

        Args:
            ask: gives the velocities under so many prompts.
            count: that are needed.
            may_reuse: whether this step may go without uncond.
        """
        if count == 2 and may_reuse and self._difference is not None and self._since < self._every - 1:
            self._since += 1
            (cond,) = ask(1)
            return [cond, cond - self._difference]
        found = ask(count)
        self._difference, self._since = (found[0] - found[1] if count == 2 else None), 0
        return found
