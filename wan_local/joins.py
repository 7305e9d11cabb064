"""How well clips are joined: the jump and the change of colour from one to the next, told while frames pass by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from .ends import colour_difference


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """One place where a clip goes over into the next.

    Attributes:
        frame: of the whole, the first behind the join; 0 where the end goes over into the beginning.
        jump: mean absolute difference of the two frames over the median of all neighbours; 1 is as even as the rest.
        colour: CIE76 difference of their mean colours; about 2.3 is just noticeable.
    """

    frame: int
    jump: float
    colour: float

    def __str__(self) -> str:
        return f"join at frame {self.frame}: jump x{self.jump:.1f}, colour dE76 {self.colour:.1f}"


class Joins:
    """Looks at frames that pass by; ask for :meth:`report` behind the last.

    Args:
        frames: first frames behind each join.
        closed: whether the last frame goes over into the first.
    """

    def __init__(self, frames: Collection[int], *, closed: bool = False) -> None:
        self._at, self._closed = frozenset(frames), closed
        self._changes: list[float] = []
        self._found: list[tuple[int, float, float]] = []

    def passing(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same chunks ``[n, H, W, 3]`` 0..1; one frame is held."""
        at, first, last = 0, None, None
        for chunk in chunks:
            for frame in chunk:
                if last is not None:
                    self._look(at, last, frame)
                first, last, at = frame if first is None else first, frame, at + 1
            first, last = (None if each is None else each.clone() for each in (first, last))
            yield chunk
        if self._closed and first is not None and last is not None:
            self._look(0, last, first)

    def report(self) -> list[Join]:
        """Of each join, in order; that of a closed clip at the end."""
        median = statistics.median(self._changes) if self._changes else 0.0
        return [
            Join(frame=frame, jump=change / median if median else math.inf if change else 1.0, colour=colour)
            for frame, change, colour in self._found
        ]

    def _look(self, at: int, before: Tensor, behind: Tensor) -> None:
        before, behind = before.float(), behind.float()
        change = (behind - before).abs().mean().item()
        self._changes.append(change)
        if at in self._at or at == 0:
            means = (frame.mean((0, 1)).view(3, 1, 1).cpu() for frame in (before, behind))
            self._found.append((at, change, colour_difference(*means)))
