"""Who has which tokens: everything, unless somebody passes in an object that shares them out.

The model asks three things of it and is otherwise the same on one card and on many; ``wan_local/parallel`` has the
objects for many.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..attention import Attend


class Sequence(Protocol):
    """How the tokens of one clip are shared out."""

    def cut(self, rows: Tensor, dim: int) -> Tensor:
        """This holder's part of something that has a row for every token."""
        ...

    def among(self, attend: Attend, length: int) -> Attend:
        """Attention of this holder's tokens to all ``length`` tokens, out of a kernel for tensors that are whole."""
        ...

    def join(self, rows: Tensor, length: int, dim: int) -> Tensor:
        """All ``length`` rows out of every holder's part."""
        ...


class Whole:
    """One holder: nothing is cut, nothing is joined."""

    def cut(self, rows: Tensor, dim: int) -> Tensor:
        return rows

    def among(self, attend: Attend, length: int) -> Attend:
        return attend

    def join(self, rows: Tensor, length: int, dim: int) -> Tensor:
        return rows
