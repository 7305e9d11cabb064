"""A stop is seen within moments, whatever hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

import wan_remote
from tests.wan_remote.world import TestWatch
from wan_remote import watch as watches
from wan_remote.errors import Interrupted
from wan_remote.watch import Watch


def test_a_stop_is_seen_while_work_hangs_and_work_that_must_end_ends():
    done = []

    class Later(Watch):
        def __init__(self):
            self.looks = 0

        def interrupted(self):
            self.looks += 1
            return self.looks > 1

    def hang(stop):
        done.append(stop.wait(5))

    async def stopped():
        await watches.in_thread(hang, Later(), "said")

    with pytest.raises(Interrupted, match="said"):
        asyncio.run(stopped())

    def work(stop):
        done.append(stop.wait(5))  # it is told, and waited for
        done.append("ended")

    async def cancelled():
        task = asyncio.create_task(watches.to_the_end(work, watches.Watch()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert done[-1] == "ended"
    assert True in done  # the hanging work was told


def test_a_submission_that_has_not_begun_is_not_sent_after_a_stop(world):
    gate = threading.Event()

    class Busy(TestWatch):
        def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
            super().stage(text, done, total)
            if text.startswith("submitting"):  # every worker hangs in somebody's poll when the stop comes
                for _ in range(2 * watches.FEW_THREADS):
                    watches._workers.submit(lambda: gate.wait(20))
                self.stopped.set()

    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(wan_remote.errors.Interrupted):
            await world.start(world.gmi(), Busy())
        return time.monotonic() - began

    took = asyncio.run(main())
    gate.set()
    time.sleep(0.3)
    assert world.cloud.posts() == 0
    assert took < 10


def test_a_slow_name_server_does_not_stand_in_the_way(world, monkeypatch):
    real, gaps, looked_up = socket.getaddrinfo, [], threading.Event()

    def slow(host, *given, **named):
        if str(host).endswith("example.net"):
            time.sleep(2.0)
            looked_up.set()
            raise socket.gaierror(-2, "not known")
        return real(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    video = {"outcome": {"video_url": "https://cdn.example.net/a.mp4"}}
    world.cloud.faults("gmi.status", {"kind": "edit", "put": video, "times": 0})
    world.real_time(0.02)

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    async def main() -> None:
        beating = asyncio.ensure_future(beat())
        run = asyncio.ensure_future(world.start(world.gmi()))
        while not looked_up.is_set() and not run.done():
            await asyncio.sleep(0.05)
        beating.cancel()
        run.cancel()
        await asyncio.gather(run, beating, return_exceptions=True)

    asyncio.run(main())
    assert looked_up.is_set()
    assert max(gaps) < 1.5
