"""The tokens of some latent frames in front of all others: what stands together can be treated otherwise.

Attention does not care in which order its rows come, and positions are in the rotation of each row. So where tokens and
the table of rotations are moved alike, nothing changes but the order of what comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor


class TokenOrder:
    """Whole frames of tokens in another order; the usual one where none is to be in front.

    Args:
        grid: tokens along (time, height, width), in that order of nesting.
        first: frames of tokens, from 0, that go to the front, in their own order.

    Attributes:
        front: tokens that stand in front.
    """

    def __init__(self, grid: tuple[int, int, int], first: Collection[int] = ()) -> None:
        frames, self._area = grid[0], grid[1] * grid[2]
        self._there = [*sorted(set(first)), *(frame for frame in range(frames) if frame not in first)]
        self._back = sorted(range(frames), key=self._there.__getitem__)
        self.front = len(set(first)) * self._area

    def put(self, rows: Tensor, dim: int) -> Tensor:
        """Rows of all tokens along ``dim``, in the usual order -> in this one."""
        return self._moved(rows, dim, self._there)

    def undo(self, rows: Tensor, dim: int) -> Tensor:
        """Rows of all tokens along ``dim``, in this order -> in the usual one."""
        return self._moved(rows, dim, self._back)

    def _moved(self, rows: Tensor, dim: int, frames: Sequence[int]) -> Tensor:
        parts = [(start * self._area, count * self._area) for start, count in _runs(frames)]
        return torch.cat([rows.narrow(dim, *part) for part in parts], dim=dim) if len(parts) > 1 else rows


def _runs(frames: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where frames follow one another: the first, and how many."""
    start = 0
    for index in range(1, len(frames) + 1):
        if index == len(frames) or frames[index] != frames[index - 1] + 1:
            yield frames[start], index - start
            start = index
