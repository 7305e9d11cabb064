"""What a launcher gives a group, which need not know who started the processes; and the one for this machine."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .errors import RankError
from .messages import Buffer, Header
from .process import Child, Process, machine, started_at
from .rank import PING, PONG
from .settings import GroupSpec, check_devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something a rank did.

    Attributes:
        rank: which; None for the launcher itself (its helper process died).
        kind: ``"answer"``, ``"pong"`` (it is there) or ``"gone"`` (its process has ended).
        header, buffers: the message of an answer.
        cause: why it is gone.
    """

    rank: int | None
    kind: str
    header: Header = b""
    buffers: Sequence[Buffer] = field(default_factory=list)
    cause: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedRank:
    """A rank's process, once it has been started.

    Attributes:
        host: address at which the other ranks reach it.
        place: for a person: the device, and the machine where there are several.
        process: its process.
    """

    host: str
    place: str
    process: Process


class Launcher(Protocol):
    """Starts ranks, carries messages, ends ranks. ``inbox`` holds what they did, in the order it was seen."""

    inbox: queue.SimpleQueue[Event]

    def start(self, stop: Callable[[], object]) -> list[StartedRank]:
        """Start all ranks, in order. Raises RankError, InputError, or what ``stop`` raises (asked several times a
        second); the caller then calls :meth:`end`.
        """

    def send(self, header: Header, buffers: Sequence[Buffer]) -> None:
        """One message to every rank. Never blocks, however frozen a rank is."""

    def send_one(self, rank: int, header: Header, buffers: Sequence[Buffer]) -> None:
        """One message to one rank."""

    def ping(self, ranks: Iterable[int]) -> None:
        """Ask for a sign of life."""

    def gone(self) -> list[Event]:
        """Ranks whose process has ended; for a death of which there was no event."""

    def output(self, rank: int | None) -> str:
        """The end of what a rank, or the launcher's own helper, wrote to standard output and error; may be empty."""

    def end(self) -> list[int]:
        """End every process at once; returns the numbers of those still there after the limit."""


class LocalLauncher:
    """The ``local`` launcher; see :class:`Launcher`."""

    def __init__(self, spec: GroupSpec) -> None:
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._spec = spec
        self._children: list[Child] = []
        self._spawning, self._over = threading.RLock(), False

    def start(self, stop: Callable[[], object]) -> list[StartedRank]:
        check_devices(self._spec.devices)
        started = []
        for rank, device in enumerate(self._spec.devices):
            stop()
            with self._spawning:  # whoever ends the group meanwhile would miss a child that comes later
                if self._over:
                    raise RankError("it was ended while it started", stage="starting")
                child = Child("rank")
                self._children.append(child)
            threading.Thread(target=self._read, args=(rank, child), daemon=True).start()
            pid = child.popen.pid
            process = Process(pid=pid, machine=machine(), started=started_at(pid))
            started.append(StartedRank(host="127.0.0.1", place=device, process=process))
        return started

    def send(self, header: Header, buffers: Sequence[Buffer]) -> None:
        for child in self._children:
            child.send(header, buffers)

    def send_one(self, rank: int, header: Header, buffers: Sequence[Buffer]) -> None:
        self._children[rank].send(header, buffers)

    def ping(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            self._children[rank].send(PING)

    def gone(self) -> list[Event]:
        dead = [(rank, child) for rank, child in enumerate(self._children) if child.popen.poll() is not None]
        return [Event(rank=rank, kind="gone", cause=child.cause_of_death()) for rank, child in dead]

    def output(self, rank: int | None) -> str:
        return "" if rank is None else self._children[rank].output()

    def end(self) -> list[int]:
        with self._spawning:
            self._over = True
        for child in self._children:
            child.kill()
        deadline = time.monotonic() + self._spec.limits.close
        left = [child.popen.pid for child in self._children if not child.reap(deadline)]
        for child in self._children:
            child.channel.close_writer()
        return left

    def _read(self, rank: int, child: Child) -> None:
        """Runs in a thread for each rank until the rank's end of the pipe closes."""
        try:
            while True:
                header, buffers = child.channel.receive()
                kind = "pong" if header == PONG else "answer"
                self.inbox.put(Event(rank=rank, kind=kind, header=header, buffers=buffers))
        except (EOFError, OSError, ValueError):
            self.inbox.put(Event(rank=rank, kind="gone", cause=child.cause_of_death()))
        finally:
            child.channel.close_reader()
