"""What travels between GPUs, over torch.distributed; each the identity in a group of one, and every byte counted.

gloo can't exchange tensors that lie on a GPU, so there they go through host memory: slow, and only for trying things
out on one GPU.
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
    """All groups of this rank under a split. Ulysses lies innermost (neighbours), cond and uncond outermost.

    Every rank of the world makes one, in the same order, after ``init_process_group``.

    Args:
        degrees: the split.
        timeout: of one collective, which torch does not take over from the world; None for torch's own.
        traffic: where bytes are counted; a new count if None.
    """

    def __init__(self, degrees: Degrees, timeout: timedelta | None, traffic: Traffic | None = None) -> None:
        self.degrees, self.traffic = degrees, Traffic() if traffic is None else traffic
        self._timeout = timeout
        world = dist.get_world_size() if dist.is_initialized() else 1
        if degrees.gpus != world:
            raise ValueError(f"{degrees} in a world of {world}")
        ranks = torch.arange(world).reshape(degrees.cfg, degrees.ring, degrees.ulysses)
        self.ulysses = self._group(ranks)
        self.ring = self._group(ranks.movedim(1, -1))
        self.sequence = self._group(ranks.flatten(1))
        self.cfg = self._group(ranks.movedim(0, -1))

    def _group(self, ranks: Tensor) -> Group:
        """The group this rank is in, among those along the last dimension; every rank makes all of them."""
        rows = ranks.reshape(-1, ranks.shape[-1]).tolist()
        if len(rows[0]) == 1:
            return Group([0], None, self.traffic)
        handle, _ = dist.new_subgroups_by_enumeration(rows, timeout=self._timeout)
        return Group(dist.get_process_group_ranks(handle), handle, self.traffic)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
