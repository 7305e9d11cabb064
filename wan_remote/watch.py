"""How a run tells the outside what it is doing and asks whether to go on, while its blocking work is done elsewhere.

Requests run in threads of our own and not in the event loop's: a host that runs one loop a prompt waits for the loop's
threads at its end, so that a hanging connection would hold up a prompt that was stopped long ago.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from .clock import Clock
from .errors import Interrupted

T = TypeVar("T")
SLICE = 0.2  # seconds between two looks at the stop button
FEW_THREADS, LONG = 12, 2.0  # at work for less than so many seconds
MOST_THREADS = 128  # in all; each call has another one beside its own, in the transport


class Watch:
    """What a host fills in; this one shows nothing and is never stopped."""

    def interrupted(self) -> bool:
        """Whether the user pressed stop. Called every 0.2 seconds at least."""
        return False

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """What is being done, in words, and how much of it if that is known. The words may be several lines."""

    def accepted(self, request_id: str) -> None:
        """The cloud has the job, under this id. Called in the event loop, before it is waited for."""

    def sending(self, looking: bool = False) -> AbstractAsyncContextManager[None]:
        """Held while what costs money is sent and until it is clear whether it was taken. May wait, or raise a
        RemoteError where nothing is to be sent any more; not so if it is held only for ``looking`` for what was sent
        before: of jobs that are under way meanwhile nobody could tell whose they are."""
        return nullcontext()


class _Workers:
    """A few threads for calls that end soon. Those that are at one work for long count no more, so that nobody waits
    for what hangs; all of them end with the program, and without work."""

    def __init__(self) -> None:
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.Lock()
        self._busy: dict[object, float] = {}  # one for each thread: since when it is at its work

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            self._tasks.append((future, work))
        self.grow()
        return future

    def grow(self) -> None:
        """Start another thread if there is work for one; to be called again while work waits."""
        with self._lock:
            now = time.monotonic()
            soon = sum(now - since < LONG for since in self._busy.values())
            if self._tasks and soon < FEW_THREADS and len(self._busy) < MOST_THREADS:
                self._busy[thread := object()] = now
                threading.Thread(target=self._serve, args=(thread,), name="wan_remote", daemon=True).start()

    def _serve(self, thread: object) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    del self._busy[thread]
                    return
                future, work = self._tasks.popleft()
                self._busy[thread] = time.monotonic()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # it is the waiting coroutine's to handle
                future.set_exception(error)
            del future, work


_workers = _Workers()


def check(watch: Watch, said: str = "stopped") -> None:
    """Raise :class:`Interrupted` if the user pressed stop."""
    if watch.interrupted():
        raise Interrupted(said)


async def sleep(seconds: float, watch: Watch, clock: Clock, said: str = "stopped") -> None:
    """Wait, and notice a stop within 0.2 seconds. Holds no thread."""
    end = clock.monotonic() + seconds
    while True:
        check(watch, said)
        left = end - clock.monotonic()
        if left <= 0:
            return
        await clock.sleep(min(SLICE, left))


async def in_thread(work: Callable[[threading.Event], T], watch: Watch, said: str = "stopped") -> T:
    """Run blocking ``work`` in a thread. On stop or cancellation its event is set and it is left to end by itself."""
    stop = threading.Event()
    future = asyncio.wrap_future(_workers.submit(lambda: work(stop)))
    future.add_done_callback(_read)
    try:
        while not future.done():
            await asyncio.wait({future}, timeout=SLICE)
            if not future.done():
                check(watch, said)
                _workers.grow()
        return future.result()
    finally:
        stop.set()


async def to_the_end(work: Callable[[threading.Event], T], watch: Watch) -> T:
    """Run ``work`` in a thread and, once begun, wait for it whatever happens: what it does must not be cut off from its
    record. A stop or a cancellation that comes before it has begun keeps it from beginning; later on it sets the event
    of ``work``, which has to bound its own time, and a cancellation is passed on afterwards.

    Raises:
        Interrupted: stopped before it began.
    """
    stop = threading.Event()
    pending = _workers.submit(lambda: work(stop))
    future = asyncio.wrap_future(pending)
    future.add_done_callback(_read)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait({future}, timeout=SLICE)
        except asyncio.CancelledError:
            cancelled = True
        if cancelled or watch.interrupted():
            stop.set()
            if pending.cancel():
                break
        _workers.grow()
    if cancelled:
        raise asyncio.CancelledError
    if pending.cancelled():
        raise Interrupted("stopped")
    return await future


def _read(future: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more, so that asyncio does not complain about it."""
    if not future.cancelled():
        future.exception()
