"""A group of ranks as its driver sees it: start, call, close. All or nothing: the first failing rank ends the group."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from .answers import Answers, Failure, Outcome
from .errors import Busy, RankError
from .launch import Launcher, LocalLauncher, StartedRank
from .lock import RUN_SECONDS, GpuLock, raising
from .messages import Fields, encode
from .rank import RankInfo, difference, versions
from .ray_launcher import RayLauncher
from .rendezvous import SECRET_BYTES, remove
from .settings import SLOW, GroupSpec

log = logging.getLogger("wan_local.ranks")
OVER = "the group has ended"
PING_SECONDS = 20.0  # a rank without a call that is silent for so long is lost; loading again is the price
LAUNCHER_TYPES: dict[str, Callable[[GroupSpec], Launcher]] = {"local": LocalLauncher, "ray": RayLauncher}


class RankGroup:
    """Processes that hold one object each and are asked together.

    ``start`` once, then ``call`` as often as wanted, then ``close``; a group that has ended is not started again, a
    new one is made. The driver is no member of the group: it may die, and the ranks go with it, or stop, and they
    stay. Calls from several threads are done one after the other; a run of many calls is kept together by ``in_use``.

    Args:
        spec: what to start.

    Attributes:
        lock: who may use the GPUs; groups of one pool share it.
    """

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self._launcher: Launcher = LAUNCHER_TYPES[spec.launcher](spec)
        self._started: list[StartedRank] = []
        self.lock = GpuLock()
        self._ending = threading.RLock()
        self._state = "new"
        self._failure = ""
        self._where: Fields = {}
        self._longest: dict[str, float] = {}  # seconds, by method
        self._number = 0
        self._owed: Answers | None = None
        self._timer: threading.Timer | None = None

    # -- state -------------------------------------------------------------------------------------------------

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.spec.world

    @property
    def pids(self) -> list[int]:
        """Process numbers, rank by rank; empty before the start."""
        return [rank.process.pid for rank in self._started]

    @property
    def alive(self) -> bool:
        """Whether the group can be called: started, not ended, and every process there."""
        return self._state == "up" and not self._launcher.gone()

    # -- life --------------------------------------------------------------------------------------------------

    def start(self, stop: Callable[[], object] | None = None) -> None:
        """Start the processes, let them meet, build the object in each.

        Args:
            stop: the user's stop, as in :meth:`call`; nothing is left behind then.

        Raises:
            InputError: more ranks than there are devices, Ray not installed, and the like; nothing is left behind.
            RankError: a rank failed; nothing is left behind.
        """
        ask = raising(stop)
        with self.lock.held(stop=ask):
            self._begin()
            try:
                self._started = self._launch(ask)
                self._join(ask)
                build = self._message("build", target=self.spec.target, kwargs=self.spec.kwargs)
                self._launcher.send(*build)
                self._finish("loading", self.spec.limits.load, self._answers(), ask, SLOW)
                self._begin("starting", "up")
            except BaseException:
                self._end("it could not be started")
                raise

    def _begin(self, before: str = "new", now: str = "starting") -> None:
        """From one state to the next, unless somebody has ended the group in the meantime."""
        with self._ending:
            if self._state == "ended":
                raise self._over("starting")
            if self._state != before:
                raise RankError("a group is started once; make a new one", stage="starting")
            self._state = now

    def _launch(self, stop: Callable[[], object]) -> list[StartedRank]:
        try:
            return self._launcher.start(stop)
        except RankError:
            if self._state == "ended":
                raise self._over("starting") from None
            raise

    def _join(self, stop: Callable[[], object]) -> None:
        """Check that all run the same software, and bring torch.distributed up."""
        spec, limits = self.spec, self.spec.limits
        hello = self._message("hello", threads=spec.threads, paths=list(spec.paths))
        self._launcher.send(*hello)
        # Importing torch from a slow disk may keep a healthy rank silent: here the limit of the stage is all.
        there = self._finish("starting", limits.start, self._answers(silence=limits.start), stop, SLOW)
        self._compare(there)
        host = "" if spec.launcher == "local" else self._started[0].host  # one machine needs no port
        self._launcher.send_one(0, *self._message("rendezvous", host=host, world=spec.world, limit=limits.join))
        self._where = self._finish("joining", limits.join, self._answers([0]), stop, SLOW)[0]
        where = {**self._where, "secret": secrets.token_hex(SECRET_BYTES)}
        self._number += 1  # one number, but to each rank a message of its own: the only one that tells them apart
        for rank, name in enumerate(spec.devices):
            device = "cuda:0" if name == "cuda" else name
            info = RankInfo(
                rank=rank, world=spec.world, device=device, backend=spec.chosen_backend, timeout=limits.collective
            )
            join = {"id": self._number, "op": "join", "info": info, "host": self._started[rank].host, "where": where}
            self._launcher.send_one(rank, *encode({**join, "limit": limits.join}))
        try:
            self._finish("joining", limits.join, self._answers(), stop, SLOW)
        except RankError as error:
            if len({rank.host for rank in self._started}) == 1 or error.cause.startswith(OVER):
                raise
            raise unreachable(error, spec.chosen_backend) from None

    def _compare(self, there: list[dict[str, str]]) -> None:
        here = versions()
        for rank, found in enumerate(there):
            if differs := difference(here, found):
                cause = f"another software version: {differs}; install the same on both"
                raise RankError(cause, stage="starting", rank=rank, place=self._started[rank].place)

    def close(self, why: str = "it was closed") -> None:
        """End every process; safe at any time, from any thread and more than once. It waits for nobody.

        Args:
            why: read by whoever calls the group afterwards, or waits for it now.

        Raises:
            RankError: a process is still there after the limit; names it.
        """
        left = self._end(why)
        if left:
            raise RankError(f"still there after {self.spec.limits.close:g} s: process {left}", stage="closing")

    def __enter__(self) -> RankGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- calls -------------------------------------------------------------------------------------------------

    @contextmanager
    def in_use(self, stop: Callable[[], object] | None = None, limit: float = RUN_SECONDS) -> Iterator[None]:
        """Keep the ranks for this thread: calls of other threads, and other leases of a pool, wait until the end of it.

        A thread may do this again while it does. ``close`` still ends the group.

        Args:
            stop: the user's stop, as in :meth:`call`; asked while waiting.
            limit: seconds to wait for whoever uses them now.

        Raises:
            Busy: somebody still did after ``limit``.
            RankError: the group has ended, perhaps while waiting; its text says why.
            Cancelled: ``stop`` returned True.
        """
        with self.lock.held(limit, raising(stop)):
            self._must_be_up("beginning a run")
            yield

    def call(
        self,
        method: str,
        *args: object,
        timeout: float | None = None,
        stage: str = "",
        stop: Callable[[], object] | None = None,
        first: bool = False,
        wait: float = RUN_SECONDS,
    ) -> list[Any]:
        """Call ``method`` of every rank's object with the same arguments; the results, rank by rank.

        Args:
            timeout: seconds; if None ``limits.first`` for the first call of this method, then ``limits.call``, or
                ``limits.slack`` times the longest one where that is more.
            stage: what an error calls it, such as ``"step 7"``; the method's name if empty.
            stop: asked several times a second; to stop it returns True or raises (as ``on_progress`` may).
            first: only rank 0 sends its result back; the others give None.
            wait: seconds to wait while another thread uses the ranks.

        Raises:
            RankError: a rank failed or the limit passed; the group has ended. Or it was ended on purpose, now or
                before: then the text says by whom, and ``rank`` is None.
            Busy: another thread used the ranks for longer than ``wait``; the group lives on.
            Cancelled: ``stop`` returned True. What ``stop`` raises passes through. The group lives on: it finishes the
                stopped call in the background, and the next call waits for that.
            InputError: an argument that can't be sent; the group lives on.
        """
        stage = stage or method
        with self.lock.held(wait, raising(stop)):
            self._must_be_up(stage)
            self.finish_stopped_call(stop)
            self._must_be_up(stage)
            message = self._message("call", method=method, args=list(args), first=first)
            self._launcher.send(*message)
            answers, began = self._answers(), time.monotonic()
            limit = timeout or self.spec.limits.for_call(self._longest.get(method))
            try:
                values = self._finish(stage, limit, answers, raising(stop), SLOW)
                took = time.monotonic() - began - answers.stood_still
                self._longest[method] = max(took, self._longest.get(method, 0.0))
                return values
            except RankError:
                raise
            except BaseException:  # the user's stop, or Ctrl-C
                self._abandon(answers)
                raise

    def call_first(self, method: str, *args: object, **options: Any) -> Any:
        """:meth:`call` where only rank 0 answers; its result."""
        return self.call(method, *args, first=True, **options)[0]

    def free_memory(self) -> None:
        """After a run: every rank gives back the memory it holds in reserve. Waits for nothing and fails never.

        After a user's stop the ranks do it when the stopped call is over.
        """
        with suppress(Busy), self.lock.held(0):  # somebody else's run does it at its own end
            if self._state == "up":
                self._launcher.send(*self._message("free_memory"))

    def finish_stopped_call(self, stop: Callable[[], object] | None = None) -> bool:
        """Wait until a stopped call is over, if there is one; whether the group can be called then."""
        with self.lock.held(stop=raising(stop)):
            if self._owed is not None:
                outcome = self._owed.wait(self.spec.limits.abandon, raising(stop))
                self._owed = None
                self._cancel_timer()
                if outcome.failure is not None or outcome.left:
                    self._end("it did not get over a stopped call")
            return self.alive

    def all_there(self, stop: Callable[[], object] | None = None) -> bool:
        """Whether every rank says that it is there; else the group is ended. For a rank lost since the last call.

        A process of another machine, or a frozen one, is not seen to be lost by looking at what we have started.
        """
        with self.lock.held(stop=raising(stop)):
            if not self.finish_stopped_call(stop):
                return False
            self._number += 1  # of no message: what is still unread answers none of this
            failure = self._answers().ping_all(PING_SECONDS, raising(stop))
            if failure is not None:
                self._fail(failure, "the look at the ranks between two runs")
            return self.alive

    # -- inside ------------------------------------------------------------------------------------------------

    def _message(self, op: str, **fields: object) -> Any:
        self._number += 1
        return encode({"id": self._number, "op": op, **fields})

    def _answers(self, ranks: Iterable[int] | None = None, silence: float | None = None) -> Answers:
        """To the message of the last number."""
        every = range(self.world) if ranks is None else ranks
        return Answers(self._launcher, self._number, every, silence or self.spec.limits.silence)

    def _finish(
        self, stage: str, limit: float, answers: Answers, stop: Callable[[], object], advice: str = ""
    ) -> list[Any]:
        """All values in order of rank; else end the group and say why."""
        outcome = answers.wait(limit, stop)
        failure = outcome.failure
        if failure is None and outcome.left:
            failure = answers.overdue(limit, advice)
        if failure is not None:
            raise self._fail(failure, stage)
        return _in_order(outcome)

    def _fail(self, failure: Failure, stage: str) -> RankError:
        if self._state == "ended":  # by ourselves, while somebody waited: what ended the ranks is no failure of theirs
            return self._over(stage)
        place = "" if failure.rank is None or not self._started else self._started[failure.rank].place
        error = RankError(failure.cause, stage=stage, rank=failure.rank, place=place)
        written = self._launcher.output(failure.rank).strip()
        self._end(str(error))
        log.error("%s%s", error, f"; it wrote last:\n{written}" if written else "")
        return error

    def _must_be_up(self, stage: str) -> None:
        if self._state == "ended":
            raise self._over(stage)
        if self._state != "up":
            raise RankError("the group was not started; start a new one", stage=stage)

    def _over(self, stage: str) -> RankError:
        return RankError(f"{OVER}: {self._failure}; start a new one", stage=stage)

    def _abandon(self, answers: Answers) -> None:
        outcome = answers.wait(self.spec.limits.stop)
        if outcome.failure is not None:
            self._end(outcome.failure.cause)
        elif outcome.left:
            self._owed = answers
            self._timer = threading.Timer(self.spec.limits.abandon, self._end, ["it did not get over a stopped call"])
            self._timer.daemon = True
            self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, why: str) -> list[int]:
        with self._ending:
            self._cancel_timer()
            if self._state == "ended":
                return []
            self._failure, self._state = why, "ended"  # in this order: others look at the state without the lock
            left = self._launcher.end()
            remove(self._where.get("folder", ""))
            return left


def unreachable(error: RankError, backend: str) -> RankError:
    """An error of ranks on several machines that could not meet, with what decides over the way between them."""
    if backend == "nccl":
        hint = "where machines have several networks, set NCCL_SOCKET_IFNAME to the one they share before Ray starts"
    else:
        hint = "the ranks use the addresses Ray has: ray start --node-ip-address=... with one the others reach"
    return RankError(f"{error.cause}; {hint}", stage=error.stage, rank=error.rank, place=error.place)


def _in_order(outcome: Outcome) -> list[Any]:
    return [outcome.values[rank] for rank in sorted(outcome.values)]
