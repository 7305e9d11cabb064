"""Ranks as processes of this machine: fresh interpreters, one pair of pipes each.

Never ``multiprocessing``: spawn runs the main module again in the child, which for ComfyUI is its start-up, and fork
after CUDA is broken. ``subprocess`` starts nothing but ``boot.py``.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from . import identity
from .channel import Channel
from .errors import RankError
from .last_words import Tail, telling
from .launcher import Event, Seat
from .messages import Buffer, Header
from .spec import GroupSpec, check_devices
from .worker import PING, PONG

TAIL_BYTES = 1 << 15  # of what a process writes; more is forgotten
DRAIN_SECONDS = 1.0  # until the last of it has arrived; something it has started may hold the pipe open for longer
BOOT = Path(__file__).resolve().with_name("boot.py")


class Child:
    """One process we have started, its pipes and what it wrote to standard error.

    Args:
        program: of ``boot.py``.
        prefix: words before the command.
        session: give it a session of its own, so that what it starts can be ended with it.
    """

    def __init__(self, program: str, prefix: Sequence[str] = (), session: bool = False) -> None:
        if not sys.executable:
            raise InputError("this Python does not know its own executable, so no rank can be started with it")
        command = [*prefix, sys.executable, *_flags(), str(BOOT), program]
        self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=session,
        )
        pipes: Any = self.popen
        self._errors = Tail(pipes.stderr, TAIL_BYTES)
        self.channel = Channel(pipes.stdout, pipes.stdin)
        self._outbox: queue.SimpleQueue[tuple[Header, Sequence[Buffer]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    def send(self, header: Header, buffers: Sequence[Buffer] = ()) -> None:
        """Hand a message to the writing thread: a frozen process would block whoever writes to its full pipe."""
        self._outbox.put((header, buffers))

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self.channel.send(*message)
            except (OSError, ValueError):
                return  # gone; the reading side tells why

    def cause_of_death(self, limit: float = 2.0) -> str:
        """How it ended, with the last line it wrote where the exit status says little."""
        try:
            status = self.popen.wait(limit)
        except subprocess.TimeoutExpired:
            return "it closed its pipe and lives on"
        return exit_cause(status, self.stderr().splitlines())

    def stderr(self) -> str:
        """The end of what it and what it started wrote; prints of a rank are among it."""
        return self._errors.text(DRAIN_SECONDS if self.popen.poll() is not None else 0.0)

    def kill(self) -> None:
        self._outbox.put(None)
        if self.popen.poll() is None:
            self.popen.kill()

    def reap(self, deadline: float) -> bool:
        """Wait for the end of a killed process; whether it has ended."""
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


def _flags() -> list[str]:
    """This interpreter's own, such as -s and -X utf8: a rank must find the packages that its driver has found."""
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()  # what multiprocessing does, too
    return flags


def exit_cause(status: int, written: Sequence[str]) -> str:
    """An exit status in words, with the line of ``written`` that tells why: CUDA, NCCL and C++ end a process by abort.

    Not for SIGKILL, which comes from outside: what was written last is not its cause.
    """
    if status >= 0:
        told = telling(written)
        return f"its process ended with exit status {status}{f': {told}' if told else ''}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return f"killed by {name} (by hand, or by the system for want of memory)"
    told = telling(written, otherwise=False)
    return f"killed by {name}{f': {told}' if told else ''}"


class LocalLauncher:
    """The ``local`` launcher; see :class:`wan_local.parallel.ranks.launcher.Launcher`."""

    def __init__(self, spec: GroupSpec) -> None:
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._spec = spec
        self._children: list[Child] = []
        self._spawning, self._over = threading.RLock(), False

    def start(self, stop: Callable[[], object]) -> list[Seat]:
        check_devices(self._spec.devices)
        seats = []
        for rank, device in enumerate(self._spec.devices):
            stop()
            with self._spawning:  # whoever ends the group meanwhile would miss a child that comes later
                if self._over:
                    raise RankError("it was ended while it started", stage="starting")
                child = Child("worker")
                self._children.append(child)
            threading.Thread(target=self._read, args=(rank, child), daemon=True).start()
            pid = child.popen.pid
            process = identity.Process(pid=pid, machine=identity.machine(), started=identity.started(pid))
            seats.append(Seat(host="127.0.0.1", place=device, process=process))
        return seats

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

    def written(self, rank: int | None) -> str:
        return "" if rank is None else self._children[rank].stderr()

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
