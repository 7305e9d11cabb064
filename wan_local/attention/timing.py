"""Kernels by how fast they are on this GPU, at the length that is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .backend import Backend

ROWS = 2048  # queries that are timed, against all keys: some milliseconds
SHORTEST = 4096  # keys below which the difference does not matter
RUNS = 2


def fastest_first(backends: Sequence[Backend], q: Tensor, k: Tensor, v: Tensor) -> list[Backend]:
    """Sorted by time; those that can't take such tensors keep their places behind."""
    able = [backend for backend in backends if backend.rejects(q, k) is None]
    if len(able) < 2 or k.shape[1] < SHORTEST:
        return list(backends)
    part = q[:, :ROWS]
    times = {backend.NAME: milliseconds(backend, part, k, v) for backend in able}
    return sorted(able, key=lambda backend: times[backend.NAME]) + [one for one in backends if one not in able]


@torch.no_grad()
def milliseconds(backend: Backend, q: Tensor, k: Tensor, v: Tensor) -> float:
    """The shortest of a few runs after one that is not counted; infinity for a kernel that fails."""
    found = []
    try:
        backend.attend(q, k, v)
        for _ in range(RUNS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            backend.attend(q, k, v)
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end))
    except Exception:  # its check, which follows, says why
        return float("inf")
    return min(found)
