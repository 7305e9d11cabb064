"""Waiting for the ranks' answers: until all are in, one has failed, a limit has passed, or the user stops.

The driver never waits for "all or nothing": under nccl the survivors of a dead rank sit in a kernel for minutes, so the
first failure is what counts. Of several failures that arrive together the cause is preferred to its echo: a rank
whose partner has died fails too, and its "connection closed by peer" may come first.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .launch import Event, Launcher
from .messages import decode

ECHO_SECONDS = 1.0  # how long the cause may come after its echo, where every other rank is there
NEWS_SECONDS = 5.0  # and where one is not: a cluster takes a while to know that a machine is lost
BLAME_SECONDS = 1.0  # how long a healthy rank may take to say that it is there
BEAT_SECONDS = 5.0  # between two pings of all
TICK = 0.1  # between two questions whether the user has stopped
CHECK_SECONDS = 0.5  # between two looks at the processes themselves
PAUSE_SECONDS = 4 * CHECK_SECONDS  # between two looks, if this program itself has not stood still


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The first thing that went wrong. ``echo``: another rank's failure as seen from this one."""

    rank: int | None
    cause: str
    echo: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a call: values of the ranks that answered, and a failure, or the ranks still owing an answer."""

    values: dict[int, Any]
    left: frozenset[int]
    failure: Failure | None = None


class Answers:
    """Collects the answers to one message.

    Args:
        launcher: whose ``inbox`` to read.
        number: of the message; answers to earlier ones are dropped.
        silence: seconds without a sign of life after which a rank is frozen.
    """

    def __init__(self, launcher: Launcher, number: int, ranks: Iterable[int], silence: float) -> None:
        now = time.monotonic()
        self._launcher, self._number, self._silence = launcher, number, silence
        self._left = set(ranks)
        self._seen = dict.fromkeys(self._left, now)
        self._values: dict[int, Any] = {}
        self._looked, self._next_ping, self._next_check = now, now + silence / 3, now + CHECK_SECONDS
        self.failure: Failure | None = None
        self.stood_still = 0.0  # seconds, this program itself

    @property
    def left(self) -> frozenset[int]:
        """Ranks still owing an answer."""
        return frozenset(self._left)

    def wait(self, limit: float, stop: Callable[[], object] | None = None) -> Outcome:
        """Return when all have answered, one has failed, or ``limit`` seconds have passed.

        ``stop`` is called several times a second; what it raises passes through, and waiting can be taken up again.
        """
        self._looked = time.monotonic()
        end = self._looked + limit
        while True:
            self._take_all()  # before anybody is judged
            end += self._stood_still()
            now = self._looked
            if not self._left or self.failure is not None or now >= end:
                break
            if stop is not None:
                stop()
            self._look_after(now)
            self._take(min(end - now, TICK if stop is not None else CHECK_SECONDS))
        if self.failure is not None and self.failure.echo:
            self._find_the_cause()
        return Outcome(values=dict(self._values), left=self.left, failure=self.failure)

    def overdue(self, limit: float, advice: str = "") -> Failure:
        """Whom to blame when the limit has passed: a rank that does not even say that it is there, if there is one.

        Args:
            advice: put behind the cause where the ranks may only be slow.
        """
        asked = time.monotonic()
        self._launcher.ping(self._left)
        while time.monotonic() < asked + BLAME_SECONDS and any(self._seen[rank] < asked for rank in self._left):
            self._take(0.05)
        mute = [rank for rank in sorted(self._left) if self._seen[rank] < asked]
        if mute:
            quiet = time.monotonic() - self._seen[mute[0]]
            told = advice if self._silence >= limit else ""  # a rank may be silent for all of it and well
            return Failure(rank=mute[0], cause=f"silent for {quiet:.0f} s, frozen: no answer within {limit:g} s{told}")
        if len(self._left) == 1:
            return Failure(
                rank=min(self._left), cause=f"no answer within {limit:g} s, though its process is there{advice}"
            )
        names = ", ".join(map(str, sorted(self._left)))
        return Failure(rank=None, cause=f"no answer of ranks {names} within {limit:g} s, though all are there{advice}")

    def ping_all(self, limit: float, stop: Callable[[], object] = lambda: None) -> Failure | None:
        """Ask every rank whether it is there, and wait for all of them; the failure of the first one that is not.

        To be called while no rank works. Signs of life from before are not counted.
        """
        self._take_all()
        self._seen = dict.fromkeys(self._left, -math.inf)
        self._looked = time.monotonic()
        end, next_ping = self._looked + limit, -math.inf
        while self.failure is None and (mute := [rank for rank in sorted(self._left) if self._seen[rank] == -math.inf]):
            end += self._stood_still()
            now = self._looked
            if now >= end:
                return Failure(rank=mute[0], cause=f"silent for {limit:g} s")
            stop()
            if now >= next_ping:
                self._launcher.ping(mute)
                next_ping = now + BEAT_SECONDS
            self._look_at_the_processes(now)
            self._take(TICK)
        return self.failure

    def _look_after(self, now: float) -> None:
        if now >= self._next_ping:
            self._launcher.ping(self._left)
            self._next_ping = now + self._silence / 3
        for rank in sorted(self._left):
            if now - self._seen[rank] > self._silence:
                self.failure = Failure(rank=rank, cause=f"silent for {now - self._seen[rank]:.0f} s")
        self._look_at_the_processes(now)

    def _stood_still(self) -> float:
        """Seconds for which this program itself has stood still since the last look (Ctrl-Z, a paused container): they
        are no rank's silence, and no limit's. A ping goes out at once then."""
        before, self._looked = self._looked, time.monotonic()
        still = self._looked - before
        if still < PAUSE_SECONDS:
            return 0.0
        self.stood_still += still
        self._seen = {rank: min(seen + still, self._looked) for rank, seen in self._seen.items()}
        self._next_ping = self._looked
        return still

    def _look_at_the_processes(self, now: float) -> None:
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            for event in self._launcher.gone():
                self._fail(event)

    def _take_all(self) -> None:
        """What has come until now."""
        while not self._launcher.inbox.empty():
            self._take(0)

    def _take(self, seconds: float) -> None:
        try:
            event = self._launcher.inbox.get(timeout=seconds)
        except queue.Empty:
            return
        if event.rank in self._seen:
            self._seen[event.rank] = time.monotonic()
        if event.kind == "gone":
            self._fail(event)
        elif event.kind == "answer" and event.rank is not None:
            self._answer(event, event.rank)

    def _answer(self, event: Event, rank: int) -> None:
        try:
            message = decode(event.header, event.buffers)
        except InputError as nonsense:
            self.failure = Failure(rank=rank, cause=str(nonsense))
            return
        if message["id"] != self._number and message["id"] != -1:
            return  # of a call that was stopped
        if "error" not in message:
            self._values[rank] = message["value"]
            self._left.discard(rank)
            return
        error = message["error"]
        text = f"out of memory: {error['text']}" if error["kind"] == "memory" else error["text"]
        self._prefer(Failure(rank=rank, cause=text, echo=error["kind"] == "peer"))

    def _fail(self, event: Event) -> None:
        self._prefer(Failure(rank=event.rank, cause=event.cause))

    def _prefer(self, failure: Failure) -> None:
        """Keep the first failure, unless it is an echo and this one is not."""
        if self.failure is None or (self.failure.echo and not failure.echo):
            self.failure = failure

    def _find_the_cause(self) -> None:
        """After an echo: who has really failed. A rank that is mute is to blame; wait for the news of its death."""
        assert self.failure is not None
        echo, asked = self.failure, time.monotonic()
        suspects = sorted(self._left - {echo.rank})
        self._launcher.ping(suspects)
        while self.failure.echo:
            now = time.monotonic()
            mute = [rank for rank in suspects if self._seen[rank] < asked]
            if now > asked + (NEWS_SECONDS if mute else ECHO_SECONDS):
                if mute:
                    cause = f"lost, no sign of life; rank {echo.rank} says: {echo.cause}"
                    self.failure = Failure(rank=mute[0], cause=cause)
                return
            self._take(0.05)
            if now >= self._next_check:
                self._next_check = now + CHECK_SECONDS / 5
                for event in self._launcher.gone():
                    self._fail(event)
