"""What the tests of both launchers share: how a group is made, and how processes are watched."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wan_local.parallel.ranks import GroupSpec, Limits, RankGroup, RaySettings

HERE = Path(__file__).resolve().parent
RAY = importlib.util.find_spec("ray") is not None and sys.platform != "win32"
NO_RAY = pytest.mark.skipif(not RAY, reason="ray is not installed (pip install 'ray>=2.52,<3')")
LAUNCHERS = ["local", pytest.param("ray", marks=NO_RAY)]


class Cluster:
    """Ray nodes in a process of their own; ``address`` is what a user would type."""

    def __init__(self, cpus):
        command = [sys.executable, str(HERE / "ranks_cluster.py"), str(cpus)]
        self._errors = open(os.devnull, "w")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
        self._process = subprocess.Popen(command, bufsize=1, **pipes)
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the Ray cluster of the tests did not start"

    def tell(self, command):
        self._process.stdin.write(command + "\n")
        assert self._process.stdout.readline().strip() == "ok", command

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()


def spec(launcher, address="", world=2, *, placement="PACK", limits=None, cpus=0.5, **kwargs):
    return GroupSpec(
        target="ranks_toy:Toy",
        devices=("cpu",) * world,
        threads=1,
        launcher=launcher,
        paths=(str(HERE),),
        kwargs={"weights": "1 2 3", **kwargs},
        limits=Limits(**{"start": 90, "join": 60, "load": 60, "call": 60, "stop": 0.3, "abandon": 30, **(limits or {})}),
        ray=RaySettings(address=address, auth="disabled", cpus=cpus, placement=placement),
    )


def group(*args, **kwargs):
    return RankGroup(spec(*args, **kwargs))


def there(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def gone(pids, seconds=0.0):
    return wait_until(lambda: not any(map(there, pids)), seconds)


def marked(mark):
    """Processes whose environment holds ``mark``: everything that was started by a process with it, however deep."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes() and there(entry.name):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def strike(pid, number, when):
    """Send a signal as soon as the file ``when`` is there; gives the time at which it was sent."""
    sent = []

    def work():
        assert wait_until(when.exists, 60)
        time.sleep(0.2)  # into the collective
        sent.append(time.monotonic())
        os.kill(pid, number)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sent
    finally:
        thread.join()


def end_marked(mark):
    for pid in marked(mark):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
