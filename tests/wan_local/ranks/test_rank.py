"""What a rank's process inherits, how it is known again, and what it gives back after a run, and what it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.wan_local.ranks.groups import HERE
from wan_local.ranks import process
from wan_local.ranks.errors import one_line
from wan_local.ranks.messages import decode, encode
from wan_local.ranks.rank import Rank, describe

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


@pytest.fixture(scope="module")
def served():
    """A rank in this process, alone in its world, that serves the toy."""
    rank = Rank()

    def ask(op, **fields):
        answer = decode(*rank.handle(*encode({"id": 1, "op": op, **fields})))
        assert answer.pop("id") == 1
        return answer

    info = {"rank": 0, "world": 1, "device": "cpu", "backend": "gloo", "timeout": 60.0}
    where = ask("rendezvous", host="", world=1, limit=20.0)["value"]
    assert ask("join", info=info, host="127.0.0.1", where=where, limit=20.0) == {"value": None}
    target = "tests.wan_local.ranks.toy_rank:Toy"
    assert ask("build", target=target, kwargs={"weights": "1 2 3"}) == {"value": None}
    yield lambda method, *args: ask("call", method=method, args=list(args), first=False)
    rank.leave()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (("wrong", "memory"), "memory", "MemoryError: cannot allocate 30 GiB"),
        (("wrong", "cuda"), "memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 30.00 GiB"),
        (("wrong", "exit"), "error", "SystemExit: quietly"),
        (("wrong", "value"), "error", "ValueError: bad weight in block 7"),
        (("wrong", "peer"), "peer", "RuntimeError: Connection closed by peer"),
        (("never_sent",), "error", "InputError: object can't be sent"),
        (("__init__",), "error", "AttributeError: __init__ is not a public method"),
    ],
)
def test_what_goes_wrong_in_a_rank_is_an_answer(served, call, kind, text):
    error = served(*call)["error"]
    assert error["kind"] == kind
    assert error["text"].startswith(text)
    assert served("total")["value"].tolist() == [1.0, 2.0, 3.0], "it lives on"


NCCL = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled system error (run with \
NCCL_DEBUG=INFO for details), NCCL version 2.27.5
ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.
Last error:
Error while creating shared memory segment /dev/shm/nccl-JzqLBL (size 9637888), error: No space left on device (28)"""


def test_the_cause_that_nccl_names_last_is_told_with_what_to_do():
    told = describe(RuntimeError(NCCL))["text"]
    assert told.startswith("RuntimeError: NCCL error in: ")
    assert "/dev/shm/nccl-JzqLBL (size 9637888), error: No space left on device (28); a container has little" in told
    assert told.endswith("--shm-size=1g or --ipc=host")
    assert "\n" not in told
    for text in (NCCL, NCCL + "x" * 900, "x" * 900, f"Last error:{'x' * 900}"):
        assert 290 < len(one_line(text)) <= 300
