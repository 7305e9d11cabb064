"""A clip that is here or was paid for is not bought again, and one there is no room for not at all."""

from __future__ import annotations

import os
import shutil
import threading
from types import SimpleNamespace

import pytest

from tests.wan_remote.fault_case import BOTH, DONE, GMI, WAVESPEED
from wan_remote.journal import Journal


def test_a_clip_that_is_still_there_is_never_bought_again(world):
    first = world.run(world.gmi())
    world.advance(91 * 86400)
    [path] = world.entries()
    os.utime(path, (1.0, 1.0))
    again = world.run(world.gmi())
    assert (again.end, again.value.path, world.cloud.accepted()) == ("result", first.value.path, 1)
    first.value.path.unlink()
    world.advance(86400)
    world.run(world.gmi(seed=8))  # tidies up
    assert path.exists()
    again = world.run(world.gmi())
    assert (again.end, again.value.resumed, world.cloud.accepted()) == ("result", True, 2)


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


def test_no_scan_of_the_journal_holds_the_event_loop_up(world, monkeypatch):
    """A journal of a year takes a second; other nodes and the page of a host have the same loop."""
    seen = []

    def watched(name, real):
        def work(*given):
            seen.append((name, threading.current_thread() is threading.main_thread()))
            return real(*given)

        monkeypatch.setattr(Journal, name, work)

    for name in ("prune", "find", "entries"):
        watched(name, getattr(Journal, name))
    first = world.run(world.gmi())
    assert world.fetch(GMI, first.value.request_id).end == "result"
    assert world.run(world.gmi(prompt="another")).end == "result"
    assert {name for name, _ in seen} == {"prune", "find", "entries"}
    assert not any(held for _, held in seen)
    assert [name for name, _ in seen].count("prune") == 1
    world.advance(86400)
    assert world.run(world.gmi()).end == "result"
    assert [name for name, _ in seen].count("prune") == 2
