"""What a rank's process inherits, how it is known again, and what it gives back after a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.wan_local.ranks.groups import HERE, group
from wan_local.ranks import process
from wan_local.ranks.messages import decode, encode
from wan_local.ranks.rank import Rank

ROOT = HERE.parents[2]

FLAGS = """
import sys; sys.path.append(sys.argv[1])
from tests.wan_local.ranks.groups import group
with group("local", world=1) as ranks:
    ranks.start()
    print(*ranks.call_first("flags"))
"""


def test_a_rank_runs_under_the_flags_of_its_driver():
    """ComfyUI for Windows is started with -s: packages of the user must not hide those of its own Python."""
    command = [sys.executable, "-s", "-X", "utf8", "-W", "ignore::ImportWarning", "-c", FLAGS, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "1", "True"], done.stderr


@pytest.fixture(params=["/proc", "ps", "neither"])
def source(request, monkeypatch, tmp_path):
    """Where a system tells of its processes: Linux, macOS, and one that tells nothing."""
    if request.param == "/proc" and not Path("/proc/self/stat").exists():
        pytest.skip("this system has no /proc")
    if sys.platform == "win32":
        pytest.skip("Windows knows no ps")
    if request.param != "/proc":
        monkeypatch.setattr(process, "PROC", tmp_path)
    if request.param == "neither":
        monkeypatch.setattr(process, "PS", str(tmp_path / "ps"))
    return request.param


def test_a_process_is_known_again_and_its_end_is_seen(source):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        found = process.Process(pid=child.pid, machine=process.machine(), started=process.started_at(child.pid))
        assert bool(found.started) == (source != "neither")
        assert process.lives(found)
        other = process.Process(pid=child.pid, machine=found.machine, started="another start")
        assert not process.lives(other)
        assert not process.kill(other)
        assert process.kill(found)
        child.wait(60)
        assert not process.lives(found)
        assert not process.kill(found)
    finally:
        child.kill()
        child.wait()


def test_after_a_run_a_rank_gives_its_gpu_what_it_does_not_need(monkeypatch):
    """Played on the CPU: that the allocator is asked, and only where there is a GPU."""
    asked = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append(1))
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda there=there: there)
        header, buffers = Rank().handle(*encode({"id": 5, "op": "free_memory"}))
        assert decode(header, buffers) == {"id": 5, "value": None}
        assert len(asked) == there


def test_the_end_of_a_run_is_said_without_waiting_for_it():
    with group("local") as ranks:
        ranks.start()
        assert ranks.call("litter") == [1, 1]
        ranks.free_memory()
        assert ranks.call("litter_left") == [0, 0]
        assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]
    ranks.free_memory()  # nobody is there: nothing to be done and nothing to be said
