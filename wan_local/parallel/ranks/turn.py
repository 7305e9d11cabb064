"""Whose turn it is on a set of cards: one thread at a time, as often within it as it likes; every wait has an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import Busy

TURN_SECONDS = 3600.0  # the longest run that another one waits for
TICK = 0.1  # between two questions whether the user has stopped


class Turn:
    """A lock that a thread may take again while it has it, and whose waiting can be stopped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._depth = 0

    @property
    def mine(self) -> bool:
        """Whether this thread has it."""
        return self._owner == threading.get_ident()

    @contextmanager
    def taken(self, limit: float = TURN_SECONDS, stop: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Wait for the turn, and have it inside the ``with``.

        Args:
            limit: seconds to wait; 0 asks once.
            stop: called several times a second while waiting; what it raises passes through.

        Raises:
            Busy: another thread still had it after ``limit``.
        """
        self._take(limit, stop)
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                    self._changed.notify_all()

    def _take(self, limit: float, stop: Callable[[], object]) -> None:
        end = time.monotonic() + limit
        while True:
            with self._changed:
                if self._owner in (None, threading.get_ident()):
                    self._owner, self._depth = threading.get_ident(), self._depth + 1
                    return
                left = end - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, TICK))
            if left <= 0:
                raise Busy(f"another run uses the cards and still did after {limit:g} s; let it end or stop it first")
            stop()
