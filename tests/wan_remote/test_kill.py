"""The program is killed with SIGKILL at a chosen point and started again: one submission, and the file at the end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED

SUBMIT = {GMI: "gmi.submit", WAVESPEED: "wavespeed.submit"}
HOLD = {"kind": "hold", "seconds": 20.0}


def until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the moment to kill never came"
        assert process.poll() is None, f"the program ended by itself: {process.communicate()}"
        time.sleep(0.01)


def kill_at(world, provider: str, moment: Callable[[], object]) -> None:
    process = world.popen(provider)
    try:
        until(moment, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def rerun(world, provider: str, *more: str) -> None:
    done = world.command(provider, *more)
    assert done.returncode == 0, done.stderr
    files = list(world.output.rglob("*.mp4"))
    assert len(files) == 1
    assert files[0].read_bytes()
    leftovers = [path.name for path in world.output.rglob("*") if path.is_file() and path.suffix != ".mp4"]
    assert leftovers == []
    killed = world.test.split("::test_")[1].split("[")[0].replace("_", " ")
    world.record("control", f"{provider}: {killed}, run again", "result")


def test_killed_after_the_intent_before_the_cloud_read_anything(world):
    world.cloud.faults("gmi.submit", HOLD)
    kill_at(world, GMI, lambda: world.cloud.records("gmi.submit"))
    assert world.states() == ["intent"]
    assert world.cloud.accepted() == 0
    world.age_journal(1000)
    told = world.command(GMI)
    assert told.returncode == 1
    assert "set take to 2" in told.stderr
    world.cloud.plan(GMI, {"status": "success", "at_submit": True}, "success")
    rerun(world, GMI, "--take", "2")
    assert world.cloud.accepted() == 1


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_killed_after_the_cloud_made_the_job_before_its_answer(world, provider):
    world.cloud.always(provider, {GMI: "success", WAVESPEED: "completed"}[provider])
    world.cloud.faults(SUBMIT[provider], {"kind": "delay", "seconds": 20.0})
    kill_at(world, provider, world.cloud.accepted)
    assert world.states() == ["intent"]
    rerun(world, provider)
    assert (world.cloud.posts(), world.cloud.accepted()) == (1, 1)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_killed_between_the_submission_and_the_first_poll(world, provider):
    world.cloud.always(provider, {GMI: "success", WAVESPEED: "completed"}[provider])
    kill_at(world, provider, lambda: world.states() == ["submitted"])
    assert world.cloud.records("file") == []
    rerun(world, provider)
    assert (world.cloud.posts(), world.cloud.accepted()) == (1, 1)


def test_killed_while_polling(world):
    world.cloud.plan(GMI, "queued", "processing", "success")
    world.cloud.faults("gmi.status", {"kind": "delay", "seconds": 20.0})
    kill_at(world, GMI, lambda: world.cloud.records("gmi.status"))
    world.cloud.control(faults={"gmi.status": []}, finish="success")
    rerun(world, GMI)
    assert (world.cloud.posts(), world.cloud.accepted()) == (1, 1)


def test_killed_while_downloading(world):
    world.cloud.plan(GMI, {"status": "success", "at_submit": True}, "success")
    world.cloud.faults("file", {"kind": "drip", "step": 4000, "seconds": 0.5})
    kill_at(world, GMI, lambda: world.cloud.records("file"))
    assert list(world.output.rglob("*.mp4")) == []
    rerun(world, GMI)
    assert (world.cloud.posts(), world.cloud.accepted()) == (1, 1)


def test_stopped_by_the_keyboard_and_run_again(world):
    """Ctrl-C is a stop, not a crash: it says where the job is, and the next run collects it."""
    world.cloud.plan(GMI, "queued", "success")
    process = world.popen(GMI)
    until(lambda: world.states() == ["submitted"], process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert world.cloud.jobs()[0]["id"] in out + err
    world.cloud.control(finish="success")
    rerun(world, GMI)
    assert (world.cloud.posts(), world.cloud.accepted()) == (1, 1)
