"""A clip that is here or was paid for is not bought again, and one there is no room for not at all."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest

from tests.wan_remote.fault_case import BOTH, DONE, GMI, WAVESPEED


def test_a_clip_that_is_still_there_is_never_bought_again(world):
    first = world.run(world.gmi())
    world.advance(91 * 86400)
    [path] = world.entries()
    os.utime(path, (1.0, 1.0))
    again = world.run(world.gmi())
    assert (again.end, again.value.path, world.cloud.accepted()) == ("result", first.value.path, 1)
    first.value.path.unlink()
    world.run(world.gmi(seed=8))  # tidies up
    assert not path.exists()


def test_the_job_that_was_asked_for_by_its_id_comes_back(world):
    first = world.run(world.gmi())
    second = world.run(world.gmi(take=2))
    assert first.value.request_id != second.value.request_id
    for wanted in (first, second):
        found = world.fetch(GMI, wanted.value.request_id)
        assert (found.value.request_id, found.value.path) == (wanted.value.request_id, wanted.value.path)


def test_an_unknown_id_speaks_of_ids(world):
    for provider in BOTH:
        outcome = world.fetch(provider, "does-not-exist")
        assert outcome.end == "JobGone"
        assert "check the id" in str(outcome.error)
        assert "same inputs" not in str(outcome.error)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_too_little_room_stops_everything_before_the_submission(world, monkeypatch, provider):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=255 * 2**20))
    outcome = world.run(world.request(provider))
    name = f"{provider}: the disk is nearly full"
    says = ("has 255 MiB left and a clip may need 256", "nothing was sent")
    world.check("before", name, outcome, end="StorageError", posts=0, accepted=0, says=says)
    assert world.cloud.records() == []


@pytest.mark.parametrize("provider", BOTH)
def test_what_is_paid_for_is_collected_with_less_room(world, monkeypatch, provider):
    here, waits, typed = (world.request(provider, prompt=prompt) for prompt in ("here", "waits", "typed"))
    assert world.run(here).end == "result"
    for request in (waits, typed):
        outcome = world.run(request, plan=["processing", DONE[provider]], wait_seconds=0)
        assert outcome.end == "StillRunning"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert world.run(here).value.resumed
    assert world.run(waits).value.resumed
    assert world.fetch(provider, world.cloud.jobs()[2]["id"]).end == "result"
    assert world.cloud.accepted() == 3
