"""Whose a file of a download that is not there whole is, and when it may be taken away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wan_remote.transport import parts


def part_of(path: Path, machine: str, process: int) -> Path:
    part = path.with_name(f"{path.name}.{machine}-{process}-0123abcd.part")
    part.write_bytes(b"half")
    return part


def aged(part: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(part, (then, then))
    return part


def this_machine(folder: Path) -> str:
    found = parts.NAME.fullmatch(parts.new_part(folder / "a.mp4").name)
    assert found is not None
    return found["machine"]


def test_a_new_one_is_known_again_and_nobody_elses(tmp_path):
    one, two = parts.new_part(tmp_path / "a.mp4"), parts.new_part(tmp_path / "a.mp4")
    assert one != two
    for part in (one, two):
        assert parts.NAME.fullmatch(part.name)
        assert re.fullmatch(rf"a\.mp4\.[0-9a-f]{{6}}-{os.getpid()}-[0-9a-f]{{8}}\.part", part.name)


def test_what_a_running_process_writes_stays_and_so_does_the_process(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    part = part_of(tmp_path / "a.mp4", this_machine(tmp_path), child.pid)
    try:
        parts.clear_away(tmp_path / "a.mp4")
        assert part.exists()
        time.sleep(0.2)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    parts.clear_away(tmp_path / "a.mp4")
    assert not part.exists()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_process_that_may_not_be_asked_runs(tmp_path, monkeypatch, error):
    def refuse(process: int, signal: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    part = part_of(tmp_path / "a.mp4", this_machine(tmp_path), 4242)
    parts.clear_away(tmp_path / "a.mp4")
    assert part.exists()


def test_another_machines_is_known_by_its_age(tmp_path):
    path = tmp_path / "a.mp4"
    fresh = aged(part_of(path, "ffffff", 99_999_999), parts.LEFT_BEHIND - 60)
    old = aged(part_of(path, "eeeeee", 1), parts.LEFT_BEHIND + 60)
    parts.clear_away(path)
    assert fresh.exists()
    assert not old.exists()


def test_other_files_stay(tmp_path):
    others = [tmp_path / name for name in ("a.mp4", "b.mp4.ffffff-1-0123abcd.part", "a.mp4.txt")]
    for other in others:
        aged(part_of(tmp_path / "x", "ffffff", 1).rename(other), 10 * parts.LEFT_BEHIND)
    parts.clear_away(tmp_path / "a.mp4")
    assert all(other.exists() for other in others)
