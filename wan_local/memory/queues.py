"""In what order copies and calculations happen on a device.

A :class:`Queue` has the calculations, which torch puts there, and beside them the copies of blocks. A *mark* is a point
among either; the other side can be told not to go on before it. On a CPU everything has happened when a call returns.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

Copies = Iterable[tuple[Tensor, Tensor]]
"""(target, source) each."""
Mark = Any


class Queue(Protocol):
    """What a kind of device gives."""

    def mark(self) -> Mark:
        """The end of everything that was calculated so far."""

    def fetch(self, copies: Copies, after: Mark) -> Mark:
        """Copy, beside the calculations, but not before ``after``; the end of the copies."""

    def wait(self, mark: Mark) -> None:
        """Calculate nothing that comes now before ``mark``."""

    def drain(self) -> None:
        """Return when all copies have ended."""


class AtOnce:
    """A device that has done what it was told when the call returns."""

    def mark(self) -> Mark:
        return None

    def fetch(self, copies: Copies, after: Mark) -> Mark:
        for target, source in copies:
            target.copy_(source)

    def wait(self, mark: Mark) -> None:
        pass

    def drain(self) -> None:
        pass


class SideStream:
    """CUDA: copies run on a stream of their own, held in order by events; the host waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)

    def mark(self) -> Mark:
        return self._record(torch.cuda.current_stream(self._device))

    def fetch(self, copies: Copies, after: Mark) -> Mark:
        with torch.cuda.stream(self._side):
            self._side.wait_event(after)
            for target, source in copies:
                target.copy_(source, non_blocking=True)
            return self._record(self._side)

    def wait(self, mark: Mark) -> None:
        torch.cuda.current_stream(self._device).wait_event(mark)

    def drain(self) -> None:
        self._side.synchronize()

    def _record(self, stream: Any) -> Mark:
        event = torch.cuda.Event()
        event.record(stream)
        return event


def queue_of(device: torch.device) -> Queue:
    """The queue of a device."""
    return SideStream(device) if device.type == "cuda" else AtOnce()


class PageLock:
    """Host memory that a CUDA device may read by itself while calculations go on. Ends with :meth:`close`.

    The memory is locked where it is: torch's own pinned allocations round up to a power of two, which would take a
    third more for a block of the 14B model. Memory beyond the system's limit stays as it was, and is copied slower.

    Attributes:
        tensors: those that are locked.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.tensors = held = list[Tensor]()
        self.close = weakref.finalize(self, _unlock, held)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Unlock, and let go of, all but these."""
        kept = {tensor.data_ptr() for tensor in tensors}
        others = [tensor for tensor in self.tensors if tensor.data_ptr() not in kept]
        self.tensors[:] = [tensor for tensor in self.tensors if tensor.data_ptr() in kept]
        _unlock(others)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Lock these; what is locked stays so, which costs no time. The first that is refused is the last tried."""
        locked = {tensor.data_ptr() for tensor in self.tensors}
        with torch.cuda.device(self._device):
            for tensor in tensors:
                if tensor.data_ptr() in locked:
                    continue
                size = tensor.numel() * tensor.element_size()
                if int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), size, 0)):
                    _forget_error(self._device)
                    break
                self.tensors.append(tensor)


def _unlock(held: list[Tensor]) -> None:
    while held:
        torch.cuda.cudart().cudaHostUnregister(held.pop().data_ptr())


def _forget_error(device: torch.device) -> None:
    """CUDA reports a refused lock once more at the next kernel; let that be this one."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)
