"""Ranks on the machines of a Ray cluster.

Ray is not used in the driver's process but in a helper of ours (``ray_process.py``). So joining a cluster that does
not answer ends at our limit (the call itself can't be interrupted), Ray of somebody else in the driver's process is
never touched, and the driver's death is seen by the helper as by any rank. It passes messages on unread.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from ..errors import InputError
from .errors import RankError
from .launch import Event, StartedRank
from .messages import Buffer, Fields, Header
from .process import Child, Process, kill, last_line, machine
from .settings import SLOW, GroupSpec

TICK = 0.1  # seconds between two questions whether the user has stopped


class RayLauncher:
    """The ``ray`` launcher; see :class:`wan_local.ranks.launch.Launcher`."""

    def __init__(self, spec: GroupSpec) -> None:
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._spec = spec
        self._control: queue.SimpleQueue[Fields] = queue.SimpleQueue()
        self._helper: Child | None = None
        self._started: list[StartedRank] = []
        self._spawning, self._over = threading.RLock(), False

    def start(self, stop: Callable[[], object]) -> list[StartedRank]:
        with self._spawning:
            if self._over:
                raise RankError("it was ended while it started", stage="starting")
            self._helper = start_helper(self._spec)
        threading.Thread(target=self._read, args=(self._helper,), daemon=True).start()
        opening = {**asdict(self._spec.ray), "gpus": self._spec.gpus_each, "world": self._spec.world}
        # The helper gives up a little earlier than we do: it knows better what was waited for.
        self._send({"open": {**opening, "limit": 0.9 * self._spec.limits.start}})
        reply = self._wait_for("started", self._spec.limits.start, stop)
        self._started = [
            StartedRank(host=one["host"], place=f"Ray node {one['node']}", process=Process(**one["process"]))
            for one in reply["started"]
        ]
        return self._started

    def send(self, header: Header, buffers: Sequence[Buffer]) -> None:
        self._send({"to": list(range(self._spec.world))}, header, *buffers)

    def send_one(self, rank: int, header: Header, buffers: Sequence[Buffer]) -> None:
        self._send({"to": [rank]}, header, *buffers)

    def ping(self, ranks: Iterable[int]) -> None:
        self._send({"ping": sorted(ranks)})

    def gone(self) -> list[Event]:
        if self._helper is None or self._helper.popen.poll() is None:
            return []
        return [self._helper_gone(self._helper)]

    def output(self, rank: int | None) -> str:
        """Of the helper; what ranks write is in Ray's own logs, on their machines."""
        return self._helper.output() if rank is None and self._helper is not None else ""

    def end(self) -> list[int]:
        """Ranks of this machine by their number, at once and frozen or not; the others by a task on their machine."""
        with self._spawning:
            self._over = True
        if self._helper is None:
            return []
        for rank in self._started:
            kill(rank.process)
        left: list[int] = []
        if self._started and self._helper.popen.poll() is None:
            self._send({"end": self._spec.limits.close})
            try:
                left = self._wait_for("ended", self._spec.limits.close + 1)["ended"]
            except RankError:
                left = [rank.process.pid for rank in self._started if rank.process.machine != machine()]
            self._helper.reap(time.monotonic() + self._spec.limits.close)  # it takes the Ray it has started with it
        self._helper.kill()
        if not self._spec.ray.address:
            # Some helpers of a Ray that was started for us outlive its main process; they are in the helper's group.
            with contextlib.suppress(OSError):
                os.killpg(self._helper.popen.pid, signal.SIGKILL)
        self._helper.reap(time.monotonic() + self._spec.limits.close)
        self._helper.channel.close_writer()
        return left

    def _send(self, header: Fields, *buffers: Buffer) -> None:
        assert self._helper is not None
        self._helper.send(json.dumps(header).encode(), buffers)

    def _wait_for(self, what: str, limit: float, stop: Callable[[], object] = lambda: None) -> Fields:
        """The helper's own answer. Raises what the helper reports, RankError when it dies or the limit passes."""
        end, reply = time.monotonic() + limit, None
        while reply is None and time.monotonic() < end:
            stop()
            with contextlib.suppress(queue.Empty):
                reply = self._control.get(timeout=TICK)
        if reply is None:
            line = last_line(self._helper.output().splitlines()) if self._helper is not None else ""
            where = f"Ray at {self._spec.ray.address}" if self._spec.ray.address else "Ray on this machine"
            more = f"; last heard: {line}" if line else ""
            raise RankError(f"{where} did not answer within {limit:g} s{more}{SLOW}", stage="starting")
        if "refused" in reply:
            raise InputError(reply["refused"])
        if what not in reply:
            raise RankError(reply["failed"], stage="starting")
        return reply

    def _helper_gone(self, helper: Child) -> Event:
        return Event(rank=None, kind="gone", cause=f"the process that speaks to Ray is gone: {helper.cause_of_death()}")

    def _read(self, helper: Child) -> None:
        try:
            while True:
                raw, buffers = helper.channel.receive()
                header = json.loads(raw)
                if "answer" in header:
                    head, *rest = buffers
                    self.inbox.put(Event(rank=header["answer"], kind="answer", header=bytes(head), buffers=rest))
                elif "pong" in header:
                    self.inbox.put(Event(rank=header["pong"], kind="pong"))
                elif "gone" in header:
                    self.inbox.put(Event(rank=header["gone"], kind="gone", cause=header["cause"]))
                else:
                    self._control.put(header)
        except (EOFError, OSError, ValueError):
            event = self._helper_gone(helper)
            self._control.put({"failed": event.cause})
            self.inbox.put(event)
        finally:
            helper.channel.close_reader()


def check_ray() -> None:
    """Raise :class:`InputError` where Ray can't be used, with what to do."""
    if platform.system() == "Windows":
        raise InputError("Ray can't be used on Windows; leave its address empty, for the GPUs of this machine")
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed in this Python; install it with: python -m pip install 'ray>=2.52,<3'")


def start_helper(spec: GroupSpec) -> Child:
    """Start the helper. Raises InputError where Ray can't be used, with what to do."""
    check_ray()
    # Ray reads these once, while it is imported. The environment is set by env(1): the library itself reads none.
    settings = [f"RAY_AUTH_MODE={spec.ray.auth}"] if spec.ray.auth else []
    if not spec.ray.address:
        settings.append("RAY_worker_niceness=0")  # by default a rank gets what the rest of the machine leaves over
    return Child("ray_process", ("env", *settings), session=True)
