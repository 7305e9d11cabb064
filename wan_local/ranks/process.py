"""Processes: who one is, well enough to end it by its number and no other; how one is started and what it wrote.

Never ``multiprocessing``: spawn runs the main module again in the child, which for ComfyUI is its start-up, and fork
after CUDA is broken. ``subprocess`` starts nothing but ``start.py``.
"""

from __future__ import annotations

import io
import os
import platform
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from ..errors import InputError
from .errors import one_line
from .messages import Buffer, Channel, Header

PROC, PS = Path("/proc"), "ps"
PS_SECONDS = 5.0
START = Path(__file__).resolve().with_name("start.py")
TAIL_BYTES = 1 << 15  # of what a process writes; more is forgotten
DRAIN_SECONDS = 1.0  # until the last of it has arrived; something it has started may hold the pipe open for longer
PIECE = 1 << 16
WHAT = "what():"  # before the text of a C++ exception that nobody caught; a stack of frames follows it
ERROR = re.compile(r"\b(\w*error|\w*exception|fatal|abort(ed)?|assertion)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One process of one machine.

    Attributes:
        pid: its number.
        machine: this boot of this machine (and of this container): numbers mean nothing elsewhere.
        started: when it started: a number is given to another process later. Empty if unknown.
    """

    pid: int
    machine: str
    started: str


def this_process() -> Process:
    return Process(pid=os.getpid(), machine=machine(), started=started_at(os.getpid()))


@lru_cache(maxsize=1)
def machine() -> str:
    """Differs between machines, boots and containers where the system tells; else the network name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def started_at(pid: int) -> str:
    """When a process started, as text to be compared; empty where there is no such process, or nothing tells."""
    if (PROC / "self").exists():
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except OSError:
            return ""
        return stat.rpartition(")")[2].split()[19]  # field 22, ticks since boot; the name before it may hold spaces
    if os.name == "nt":
        return ""
    command = [PS, "-o", "lstart=", "-p", str(pid)]  # macOS
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PS_SECONDS).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def lives(process: Process) -> bool:
    """Whether a process of this machine is still there, itself and not another one with its number."""
    if process.machine != machine():
        return False
    if process.started:
        return started_at(process.pid) == process.started
    return psutil.pid_exists(process.pid)  # all that is left where nothing tells when it started


def kill(process: Process) -> bool:
    """End a process of this machine at once, frozen or not; False where it is not ours to end or already gone."""
    if not lives(process):
        return False
    try:
        os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except OSError:
        return False
    return True


class Child:
    """One process we have started, its pipes and what it wrote to standard error.

    Args:
        program: of ``start.py``.
        prefix: words before the command.
        session: give it a session of its own, so that what it starts can be ended with it.
    """

    def __init__(self, program: str, prefix: Sequence[str] = (), session: bool = False) -> None:
        if not sys.executable:
            raise InputError("this Python does not know its own executable, so no rank can be started with it")
        command = [*prefix, sys.executable, *_flags(), str(START), program]
        self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=session,
        )
        pipes: Any = self.popen
        self._tail = Tail(pipes.stderr, TAIL_BYTES)
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
        return exit_cause(status, self.output().splitlines())

    def output(self) -> str:
        """The end of what it and what it started wrote; prints of a rank are among it."""
        return self._tail.text(DRAIN_SECONDS if self.popen.poll() is not None else 0.0)

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
        line = error_line(written)
        return f"its process ended with exit status {status}{f': {line}' if line else ''}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return f"killed by {name} (by hand, or by the system for want of memory)"
    line = error_line(written, otherwise=False)
    return f"killed by {name}{f': {line}' if line else ''}"


class Tail:
    """Reads a stream to its end in a thread of its own, so that whoever writes is never held up, and keeps the end.

    Args:
        stream: unbuffered; closed when its other end is.
        size: bytes to keep.
    """

    def __init__(self, stream: io.RawIOBase, size: int) -> None:
        self._stream, self._size = stream, size
        self._kept = b""
        self._ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def text(self, limit: float = 0.0) -> str:
        """The end of it, after waiting up to ``limit`` seconds for the stream's own end."""
        self._ended.wait(limit)
        return self._kept.decode(errors="replace")

    def _read(self) -> None:
        try:
            while piece := self._stream.read(PIECE):
                self._kept = (self._kept + piece)[-self._size :]
        except (OSError, ValueError):
            pass  # as good as its end
        finally:
            self._ended.set()
            self._stream.close()


def error_line(lines: Sequence[str], otherwise: bool = True) -> str:
    """The line that tells why a process ended: of a C++ exception its text, else the last one that names an error.

    Args:
        otherwise: take the last line where none does; else the answer is empty then.
    """
    said = [" ".join(line.split()) for line in lines if line.strip()]
    for line in reversed(said):
        if line.startswith(WHAT):
            return one_line(line)
    for line in reversed(said):
        if ERROR.search(line) and not line.startswith("frame #"):
            return one_line(line)
    return last_line(said) if otherwise else ""


def last_line(lines: Sequence[str], limit: int = 300) -> str:
    """The last line that says something; of a traceback that is the exception."""
    said = [line.strip() for line in lines if line.strip()]
    return one_line(said[-1], limit) if said else ""
