"""What travels between cards, over torch.distributed; each the identity in a group of one, and every byte counted.

gloo can't exchange tensors that lie on a GPU, so there they go through host memory: slow, and only for trying things
out on one card.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .degrees import Degrees


class Traffic:
    """What one rank sent, and how long it sat in exchanges.

    Attributes:
        sent: bytes that left this rank.
        seconds: time in exchanges; on a GPU only what the host waited.
        calls: exchanges.
    """

    def __init__(self) -> None:
        self.sent, self.seconds, self.calls = 0, 0.0, 0

    @contextmanager
    def count(self, sent: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.sent, self.calls = self.sent + sent, self.calls + 1


class Group:
    """Some ranks of the world, this one among them.

    Args:
        ranks: of the world, in order.
        handle: torch's process group of them; None for a group of one.
        traffic: where bytes are counted.
    """

    def __init__(self, ranks: list[int], handle: Any, traffic: Traffic) -> None:
        self.ranks, self._handle, self._traffic = ranks, handle, traffic
        self.size = len(ranks)
        self.index = ranks.index(dist.get_rank()) if self.size > 1 else 0
        self._by_host = self.size > 1 and dist.get_backend(handle) == "gloo"

    def exchange(self, parts: Tensor) -> Tensor:
        """``[size, ...]``: part i goes to rank i; what came from rank i is part i of the result."""
        if self.size == 1:
            return parts
        sent = self._out(parts)
        got = torch.empty_like(sent)
        with self._traffic.count(_bytes(parts) * (self.size - 1) // self.size):
            dist.all_to_all_single(got, sent, group=self._handle)
        return got.to(parts.device)

    def gather(self, part: Tensor) -> list[Tensor]:
        """Every rank's ``part``, in the order of the ranks; all have one shape."""
        if self.size == 1:
            return [part]
        sent = self._out(part)
        got = [torch.empty_like(sent) for _ in self.ranks]
        with self._traffic.count(_bytes(part) * (self.size - 1)):
            dist.all_gather(got, sent, group=self._handle)
        return [one.to(part.device) for one in got]

    def largest(self, value: Tensor) -> Tensor:
        """The largest of every rank's ``value``, one number each."""
        if self.size == 1:
            return value
        shared = self._out(value.detach().float().reshape(1)).clone()  # float32 holds every half-precision number
        with self._traffic.count(_bytes(shared) * (self.size - 1)):
            dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._handle)
        return shared.to(value.device, value.dtype).reshape(value.shape)

    def pass_on(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each tensor to the next rank of a ring; what comes from the one before."""
        if self.size == 1:
            return tensors
        sent = [self._out(tensor) for tensor in tensors]
        got = [torch.empty_like(tensor) for tensor in sent]
        after, before = self.ranks[(self.index + 1) % self.size], self.ranks[self.index - 1]
        with self._traffic.count(sum(map(_bytes, tensors))):
            work = [dist.P2POp(dist.isend, tensor, after, self._handle) for tensor in sent]
            work += [dist.P2POp(dist.irecv, tensor, before, self._handle) for tensor in got]
            for request in dist.batch_isend_irecv(work):
                request.wait()
        return [new.to(old.device) for new, old in zip(got, tensors, strict=True)]

    def _out(self, tensor: Tensor) -> Tensor:
        return (tensor.cpu() if self._by_host else tensor).contiguous()


class Groups:
    """All groups of this rank under a split. Ulysses lies innermost (neighbours), guidance outermost.

    Every rank of the world makes one, in the same order, after ``init_process_group``.

    Args:
        degrees: the split.
        traffic: where bytes are counted; a new count if None.
    """

    def __init__(self, degrees: Degrees, traffic: Traffic | None = None) -> None:
        self.degrees, self.traffic = degrees, Traffic() if traffic is None else traffic
        rank = dist.get_rank() if dist.is_initialized() else 0
        world = dist.get_world_size() if dist.is_initialized() else 1
        if degrees.cards != world:
            raise ValueError(f"{degrees} in a world of {world}")
        u, r, c = degrees.ulysses, degrees.ring, degrees.cfg
        table = [[[(side * r + place) * u + head for head in range(u)] for place in range(r)] for side in range(c)]
        self.ulysses = self._make([table[i][j] for i in range(c) for j in range(r)], rank)
        self.ring = self._make([[table[i][j][k] for j in range(r)] for i in range(c) for k in range(u)], rank)
        self.sequence = self._make([sum(table[i], []) for i in range(c)], rank)
        self.cfg = self._make([[table[i][j][k] for i in range(c)] for j in range(r) for k in range(u)], rank)

    def _make(self, rows: list[list[int]], rank: int) -> Group:
        """The group this rank is in; every rank makes every group, as torch wants it."""
        mine: Group | None = None
        for ranks in rows:
            handle = dist.new_group(ranks, timeout=_patience()) if len(ranks) > 1 else None
            if rank in ranks:
                mine = Group(ranks, handle, self.traffic)
        if mine is None:
            raise ValueError(f"rank {rank} is in none of {rows}")
        return mine


def _patience() -> timedelta | None:
    """How long a collective of the world may take; None where torch does not tell, for its own default.

    A new group does not take it over by itself: it would get 10 or 30 minutes.
    """
    world: Any = dist.group.WORLD
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    options = getattr(world._get_backend(torch.device(device)), "options", None)
    patience: timedelta | None = getattr(options, "_timeout", None)
    return patience


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
