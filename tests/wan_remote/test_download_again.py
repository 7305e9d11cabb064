"""Downloads of one file that follow each other or overlap: a stopped one must not spoil the next."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.wan_remote.world import DOWNLOAD

DRIP = {"kind": "drip", "step": 3000, "seconds": 0.25}


@pytest.fixture
def slow_check(monkeypatch):
    """The first check of a file takes a second, as that of a long clip does."""
    real, started, ended = DOWNLOAD.why_no_video, threading.Event(), threading.Event()

    def check(path: Path) -> str | None:
        if started.is_set():
            return real(path)
        started.set()
        time.sleep(1.0)
        ended.set()
        return real(path)

    monkeypatch.setattr(DOWNLOAD, "why_no_video", check)
    return started, ended


def left(world) -> list[str]:
    return [path.name for path in world.output.rglob("*") if path.is_file()]


def test_stopped_while_the_file_is_checked_and_queued_again_at_once(world, slow_check):
    started, ended = slow_check
    first = world.run(world.gmi(), plan=["success"], stop_when=started.is_set)
    assert first.end == "Interrupted"
    assert not ended.is_set()  # the thread that was left alone still works on its file
    world.cloud.faults("file", DRIP)
    again = world.run(world.gmi())
    assert ended.is_set()
    name = "gmi: stopped while the file is checked, queued again at once"
    world.check("control", name, again, end="result", posts=1)
    assert left(world) == [again.value.path.name]


def test_a_stop_during_the_check_ends_without_a_file(world, slow_check):
    started, ended = slow_check
    assert world.run(world.gmi(), plan=["success"], stop_when=started.is_set).end == "Interrupted"
    assert ended.wait(5)
    deadline = time.monotonic() + 5
    while left(world) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left(world) == []  # neither under the final name nor in part


def test_what_a_killed_run_left_is_cleared_away(world):
    folder = world.output / "gmi"
    assert world.run(world.gmi()).end == "result"
    [path] = folder.glob("*.mp4")
    path.unlink()
    old, fresh, other = (folder / f"{name}.part" for name in (f"{path.name}.1-a", f"{path.name}.2-b", "x.mp4.1-a"))
    for part in (old, fresh, other):
        part.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    os.utime(other, (1.0, 1.0))
    assert world.run(world.gmi()).end == "result"
    assert not old.exists()
    assert fresh.exists()  # perhaps another process is at it
    assert other.exists()  # of another job
