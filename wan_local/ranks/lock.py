"""Who may use a set of GPUs: one thread at a time, as often within that as it likes; every wait has an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import Cancelled
from .errors import Busy

RUN_SECONDS = 3600.0  # the longest run that another one waits for
TICK = 0.1  # between two questions whether the user has stopped


class GpuLock:
    """A lock that a thread may take again while it has it, and whose waiting can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None

    @property
    def mine(self) -> bool:
        """Whether this thread has it."""
        return self._owner == threading.get_ident()

    @contextmanager
    def held(self, limit: float = RUN_SECONDS, stop: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Wait for the lock, and have it inside the ``with``.

        Args:
            limit: seconds to wait; 0 asks once.
            stop: called several times a second while waiting; what it raises passes through.

        Raises:
            Busy: another thread still had it after ``limit``.
        """
        end = time.monotonic() + limit
        while not self._lock.acquire(timeout=max(0.0, min(end - time.monotonic(), TICK))):
            if time.monotonic() >= end:
                raise Busy(f"another run uses the GPUs and still did after {limit:g} s; let it end or stop it first")
            stop()
        before, self._owner = self._owner, threading.get_ident()
        try:
            yield
        finally:
            self._owner = before
            self._lock.release()


def raising(stop: Callable[[], object] | None) -> Callable[[], object]:
    """``stop``, which may answer True or raise, as something that raises."""

    def check() -> None:
        if stop is not None and stop():
            raise Cancelled("stopped by the user")

    return check
