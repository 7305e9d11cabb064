"""Who a process is, well enough to end it by its number without hitting another one; and what it runs."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PROC, PS = Path("/proc"), "ps"
PS_SECONDS = 5.0
LIBRARY = Path(__file__).resolve().parents[2]


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
    return Process(pid=os.getpid(), machine=machine(), started=started(os.getpid()))


@lru_cache(maxsize=1)
def machine() -> str:
    """Differs between machines, boots and containers where the system tells; else the network name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def started(pid: int) -> str:
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
        return started(process.pid) == process.started
    if os.name == "nt":
        return True  # nobody asks there (Ray is not for Windows), and signal 0 would be Ctrl-C
    try:
        os.kill(process.pid, 0)  # all that is left where nothing tells when it started
    except OSError:
        return False
    return True


def kill(process: Process) -> bool:
    """End a process of this machine at once, frozen or not; False where it is not ours to end or already gone."""
    if not lives(process):
        return False
    try:
        os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except OSError:
        return False
    return True


def versions() -> dict[str, str]:
    """What must be the same in every rank: Python, torch and this library's source."""
    import torch

    return {"Python": platform.python_version(), "torch": str(torch.__version__), "WanFLF2V pack": fingerprint()}


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve digits over the library's source files: equal if and only if the code is."""
    digest = hashlib.sha256()
    for path in sorted(LIBRARY.rglob("*.py"), key=lambda path: path.relative_to(LIBRARY).as_posix()):
        digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Names both versions of the first thing that differs; empty if nothing does."""
    for name, version in here.items():
        if there.get(name) != version:
            return f"{name} {there.get(name)} there, {version} here"
    return ""
