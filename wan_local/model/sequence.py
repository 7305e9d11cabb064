"""Which tokens of a clip this GPU has: all of them, unless the caller passes in an object that shards them.

The model asks three things of it and is otherwise the same on one GPU and on many; ``wan_local/parallel`` has the
objects for many.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..attention import Attend


class Sequence(Protocol):
    """How the tokens of one clip are sharded."""

    def shard(self, rows: Tensor, dim: int) -> Tensor:
        """This GPU's part of something that has a row for every token."""
        ...

    def attention(self, attend: Attend, length: int) -> Attend:
        """Attention of this GPU's tokens to all ``length`` tokens, out of a kernel for whole tensors."""
        ...

    def gather(self, rows: Tensor, length: int, dim: int) -> Tensor:
        """All ``length`` rows out of every GPU's part."""
        ...


class Whole:
    """One GPU has all tokens."""

    def shard(self, rows: Tensor, dim: int) -> Tensor:
        return rows

    def attention(self, attend: Attend, length: int) -> Attend:
        return attend

    def gather(self, rows: Tensor, length: int, dim: int) -> Tensor:
        return rows
