"""The end of an exchange, which nothing that the other side does can put off.

A socket's own timeout starts anew with each byte, and bounds no look-up of a name: headers that drip, or ``100
Continue`` for ever, outlast it. So a second thread looks at the time and at the stop, and ends the connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
SLICE = 0.1  # seconds between two looks at time and stop


class CutOff(OSError):
    """The exchange is over."""


class Cutoff:
    """Bounds one exchange.

    Args:
        stop: set when nobody wants it any more.
        connect: seconds until the request must have begun to go out: for names, connections, proxies and certificates.
        limit: seconds from then on, and one more for every ``slowest`` bytes that went or came.
        slowest: bytes a second, either way, that a line is given time for.
        longest: seconds from when the request began to go out, whatever its size.
        firm: whether a request that has begun to go out goes on in spite of a stop.

    Attributes:
        begun: whether any of the request went out, as the connection itself says.
        sent: whether all of it did.
        stuck: whether sending was given up because nothing moved.
        untrusted: whether the other side, or a proxy on the way, could not show a certificate that is trusted.
        stopped: whether it was ended by a stop and not by the time.
    """

    def __init__(
        self,
        stop: threading.Event,
        *,
        connect: float,
        limit: float,
        slowest: float,
        longest: float = float("inf"),
        firm: bool = False,
    ) -> None:
        self._stop, self._limit, self._firm, self._slowest, self._longest = stop, limit, firm, slowest, longest
        self._lock = threading.Lock()
        self._deadline, self._last = time.monotonic() + connect, float("inf")
        self._handles: list[socket.socket] = []
        self._over = False
        self.begun = self.sent = self.stuck = self.untrusted = self.stopped = False

    @property
    def over(self) -> bool:
        return self._over

    def run(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives, done in a thread; None once it is over: then the thread is left to itself, since the
        look-up of a name can't be ended. It begins no request any more."""
        found: list[T] = []
        ended = threading.Event()

        def serve() -> None:
            try:
                found.append(work())
            finally:
                self._release()
                ended.set()

        threading.Thread(target=serve, name="wan_remote exchange", daemon=True).start()
        self._watch(ended)
        return found[0] if found else None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """End the connections of what is done inside, in this thread, when it is over."""
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(ended,), name="wan_remote cutoff", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self._release()

    # what the connection says

    def hold(self, sock: socket.socket) -> None:
        """Keep a second handle on a connection, by which it is ended: the first may be wrapped for TLS meanwhile."""
        with self._lock:
            if not self._over:
                self._handles.append(socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto))
                return
        sock.close()
        raise CutOff("over")

    def begin(self) -> None:
        """The request goes out from now on.

        Raises:
            CutOff: it is over, and nothing must be sent.
        """
        with self._lock:
            if self._over:
                raise CutOff("over")
            self.begun, now = True, time.monotonic()
            self._deadline, self._last = now + self._limit, now + self._longest

    def moved(self, size: int) -> None:
        """So many bytes went or came.

        Raises:
            CutOff: it is over.
        """
        with self._lock:
            if self._over:
                raise CutOff("over")
            self._deadline = min(self._deadline + size / self._slowest, self._last)

    def check(self) -> None:
        """Raise :class:`CutOff` if it is over."""
        self.moved(0)

    # the other thread

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(SLICE):
            if self._look():
                return

    def _look(self) -> bool:
        """Whether it is over; ends the connections then."""
        with self._lock:
            self.stopped = self._stop.is_set() and not (self._firm and self.begun)
            if not self.stopped and time.monotonic() < self._deadline:
                return False
            self._over = True
            for handle in self._handles:
                with contextlib.suppress(OSError):  # the other side was faster
                    handle.shutdown(socket.SHUT_RDWR)
        return True

    def _release(self) -> None:
        with self._lock:
            self._over = True
            while self._handles:
                self._handles.pop().close()
