"""Tokens sharded over GPUs, exchanged for attention, and gathered. The frames are those of one GPU.

Tokens are padded to a multiple of the parts, with twins of the last one. The padding is never attended to: keys and
values are trimmed to the true length once they are together. So a twin stays the same as its token in every layer, and
nothing that looks at the largest number among all tokens sees another one. Text and image embeddings are never sharded:
every GPU has all of them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..attention import Attend
from ..errors import InputError
from .collectives import Groups
from .ring import ring_attention


class ShardedSequence:
    """This rank's share of the tokens, see :class:`wan_local.model.sequence.Sequence`.

    Args:
        groups: of this rank.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def shard(self, rows: Tensor, dim: int) -> Tensor:
        """Padded behind with copies of the last row, then this rank's part; parts lie in the order of the ranks."""
        group = self._groups.sequence
        part = -(-rows.shape[dim] // group.size)
        padding = part * group.size - rows.shape[dim]
        if padding:
            last = rows.narrow(dim, rows.shape[dim] - 1, 1)
            rows = torch.cat([rows, last.repeat_interleave(padding, dim=dim)], dim=dim)
        return rows.narrow(dim, group.index * part, part).contiguous()

    def gather(self, rows: Tensor, length: int, dim: int) -> Tensor:
        return torch.cat(self._groups.sequence.gather(rows), dim=dim).narrow(dim, 0, length)

    def attention(self, attend: Attend, length: int) -> Attend:
        return partial(self._attend, attend, length)

    def _attend(self, attend: Attend, length: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[B, l, N, K]`` of this rank's tokens -> the same, after attention to all tokens."""
        ulysses, ring = self._groups.ulysses, self._groups.ring
        if q.shape[2] % ulysses.size:
            raise InputError(f"{q.shape[2]} heads can't be shared by {ulysses.size} GPUs")
        if ulysses.size > 1:  # q, k and v in one exchange: tokens come together, heads part
            q, k, v = self._to_heads(torch.stack([q, k, v]))
        if ring.size == 1:
            out = attend(q, k[:, :length], v[:, :length])
        else:
            out = ring_attention(ring, q, k, v, length)
        return out if ulysses.size == 1 else self._to_tokens(out)

    def _to_heads(self, qkv: Tensor) -> Tensor:
        """``[3, B, l, N, K]`` -> ``[3, B, U l, N / U, K]``."""
        group = self._groups.ulysses
        parts = qkv.unflatten(3, (group.size, -1)).movedim(3, 0)  # [U, 3, B, l, N / U, K]
        return group.exchange(parts.contiguous()).movedim(0, 2).flatten(2, 3)

    def _to_tokens(self, out: Tensor) -> Tensor:
        """``[B, U l, N / U, K]`` -> ``[B, l, N, K]``."""
        group = self._groups.ulysses
        parts = out.unflatten(1, (group.size, -1)).movedim(1, 0)  # [U, B, l, N / U, K]
        return group.exchange(parts.contiguous()).movedim(0, 2).flatten(2, 3)
