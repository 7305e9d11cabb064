"""One transformer gives its place on the device to another, block by block, while it works for the last time.

A block of the last forward that has done its work leaves, and the next transformer's block is copied to where it was,
beside the calculations of the blocks that follow. So the next one can begin when this one has ended, and together they
never take more of the device than one. Read after ``offload.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from .offload import AroundForward, Offload
from .queues import Mark


class Switch:
    """What is under way between two transformers of the same sizes, from the leaving one's last step on.

    Args:
        leaving: open, at work.
        coming: closed. What has come stays with it until it is opened or closed.
        forwards: of ``leaving`` from now on, after which it is not needed any more; 1 or more.
    """

    def __init__(self, leaving: Offload, coming: Offload, forwards: int) -> None:
        self._leaving, self._coming, self._before = leaving, coming, forwards - 1
        self._launched: tuple[int, Mark] | None = None  # the last block that was, and the end of its work
        self._staying = leaving.staying()
        self._around = [_Watched(self, index, block) for index, block in self._staying.items()]

    def launched(self, index: int) -> None:
        """A block that stays on the device was launched. The one before it is copied over only now: the host waits for
        copies from memory that is not locked, and meanwhile the device has this one to calculate."""
        first, last = next(iter(self._staying)), next(reversed(self._staying))
        if self._before:
            self._before -= index == last
            return
        if index != first and self._launched is not None:
            self._leaving.give_place(*self._launched, self._coming)
        self._launched = index, self._leaving.queue.mark()
        if index == last:
            self._leaving.give_place(*self._launched, self._coming)

    def close(self) -> None:
        """Every block has its own forward again."""
        for around in self._around:
            around.undo()


class _Watched(AroundForward):
    """A block's forward, and word of it."""

    def __init__(self, switch: Switch, index: int, block: nn.Module) -> None:
        super().__init__(block)
        self._switch, self._index = switch, index

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        result = self.inner(*args, **kwargs)
        self._switch.launched(self._index)
        return result
