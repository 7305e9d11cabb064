"""What the tests of both launchers share: how a group is made, and how processes are watched."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from wan_local.ranks import GroupSpec, Limits, RankGroup, RaySettings
from wan_local.ranks.rendezvous import PREFIX

HERE = Path(__file__).resolve().parent
RAY = importlib.util.find_spec("ray") is not None and sys.platform != "win32"
NO_RAY = pytest.mark.skipif(not RAY, reason="ray is not installed (pip install 'ray>=2.52,<3')")
LAUNCHERS = ["local", pytest.param("ray", marks=NO_RAY)]


class Cluster:
    """Ray nodes in a process of their own; ``address`` is what a user would type."""

    def __init__(self, cpus):
        command = [sys.executable, str(HERE / "ray_cluster.py"), str(cpus)]
        self._errors = open(os.devnull, "w")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
        self._process = subprocess.Popen(command, bufsize=1, **pipes)
        self.address = self._process.stdout.readline().strip()
        self.nodes = 1
        assert self.address, "the Ray cluster of the tests did not start"

    def tell(self, command):
        self._process.stdin.write(command + "\n")
        assert self._process.stdout.readline().strip() == "ok", command
        self.nodes += 1 if command.startswith("add") else -1

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()


def spec(launcher, address="", world=2, *, placement="PACK", limits=None, cpus=0.5, **kwargs):
    return GroupSpec(
        target="toy_rank:Toy",
        devices=("cpu",) * world,
        threads=1,
        launcher=launcher,
        paths=(str(HERE),),
        kwargs={"weights": "1 2 3", **kwargs},
        limits=Limits(
            **{"start": 90, "join": 60, "load": 60, "call": 60, "stop": 0.3, "abandon": 30, **(limits or {})}
        ),
        ray=RaySettings(address=address, auth="disabled", cpus=cpus, placement=placement),
    )


def group(*args, **kwargs):
    return RankGroup(spec(*args, **kwargs))


def runs(pid):
    """Whether a process is there and goes on: a stopped one does not."""
    return there(pid) and psutil.Process(pid).status() != psutil.STATUS_STOPPED


def there(pid):
    """Whether a process is there, stopped or not (a zombie is not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
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


def folders(pids):
    """The folders of the rendezvous of these ranks; each has the number of the rank that made it in its name."""
    return [path for pid in pids for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{pid}-*")]


def session(pid):
    """The session of a process; 0 where it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def children(program):
    """Processes of this one that run a program of ``start.py``."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends while it is looked at
            found += [child.pid] if child.cmdline()[-1:] == [program] else []
    return found


def in_sessions(sessions):
    """Running processes of these sessions: everything a process has started, unless it has left on purpose."""
    return [pid for pid in psutil.pids() if session(pid) in sessions and there(pid)]


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
