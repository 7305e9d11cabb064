"""Stops, restarts, damaged journals and many jobs at once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.wan_remote.fault_case import GMI, POLL, WAVESPEED, retry_after
from tests.wan_remote.world import image
from wan_remote import watch as watches

SLOW = {"kind": "hang", "seconds": 3.0}

STOPS = {
    "a slow upload": (WAVESPEED, ("wavespeed.ticket", "wavespeed.binary"), SLOW, 0),
    "a slow poll": (GMI, ("gmi.status",), SLOW, 1),
    "a slow poll of WaveSpeed": (WAVESPEED, ("wavespeed.result",), SLOW, 1),
    "a dripping download": (GMI, ("file",), {"kind": "drip", "step": 2000, "seconds": 0.3}, 1),
}


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("stage", list(STOPS))
def test_stop_in_the_middle_of_a_request(world, stage, how):
    provider, routes, fault, posts = STOPS[stage]
    for route in routes:
        world.cloud.faults(route, fault)
    outcome = world.run(world.request(provider), **{f"{how}_when": lambda: any(map(world.cloud.records, routes))})
    journal = ("", "intent") if posts == 0 else ("submitted", "done")
    name = f"{provider}: {'stopped' if how == 'stop' else 'a sibling node failed'} during {stage}"
    end = "Interrupted" if how == "stop" else "CancelledError"
    world.check("control", name, outcome, end=end, posts=posts, accepted=posts, journal=journal)
    assert outcome.after_stop < 1.0  # seconds from the stop to the end
    again = world.run(world.request(provider))
    assert (again.end, world.cloud.posts(), world.cloud.accepted()) == ("result", 1, 1)


WAITS = {
    "between polls": (GMI, POLL[GMI], {"kind": "pass"}, 1, 1, "submitted"),
    "a wait after 429": (GMI, "gmi.submit", retry_after(GMI, 429, "100"), 1, 0, ("intent", "rejected")),
}


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("stage", list(WAITS))
def test_stop_while_waiting(world, stage, how):
    provider, route, fault, posts, accepted, journal = WAITS[stage]
    world.cloud.faults(route, fault)
    world.real_time(1.0)
    world.poll_soon()
    end = "Interrupted" if how == "stop" else "CancelledError"
    outcome = world.run(world.request(provider), plan=["queued"], **{f"{how}_when": lambda: world.cloud.records(route)})
    name = f"{provider}: {'stopped' if how == 'stop' else 'a sibling node failed'} during {stage}"
    world.check("control", name, outcome, end=end, posts=posts, accepted=accepted, journal=journal)
    assert outcome.after_stop < 0.6


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_stop_while_the_submission_is_in_flight_keeps_the_job(world, provider, how):
    route = f"{provider}.submit"
    world.cloud.faults(route, {"kind": "delay", "seconds": 0.8})
    outcome = world.run(world.request(provider), **{f"{how}_when": lambda: world.cloud.records(route)})
    name = f"{provider}: {'stopped' if how == 'stop' else 'a sibling node failed'} while the submission was in flight"
    end = "Interrupted" if how == "stop" else "CancelledError"
    world.check("control", name, outcome, end=end, posts=1, journal="submitted")
    again = world.run(world.request(provider))
    assert (again.end, world.cloud.posts()) == ("result", 1)
    assert again.value.resumed


def test_stop_before_anything(world):
    outcome = world.run(world.gmi(), stop_when=lambda: True)
    name = "gmi: stopped before anything"
    world.check("control", name, outcome, end="Interrupted", posts=0, accepted=0)
    assert world.cloud.records() == []
    assert world.entries() == []


def test_a_stop_says_where_the_job_is(world):
    world.real_time(1.0)
    world.poll_soon()
    outcome = world.run(world.gmi(), plan=["queued"], stop_when=lambda: world.cloud.records("gmi.status"))
    assert outcome.end == "Interrupted"
    assert world.cloud.jobs()[0]["id"] in outcome.text


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "not JSON": lambda path: path.write_text("hello"),
    "a list": lambda path: path.write_text("[]"),
    "of wrong types": lambda path: path.write_text('{"v": 1, "state": 7, "id": [], "fingerprint": null}'),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_journal_entry_is_set_aside(world, damage):
    world.cloud.settings(offset=0)
    assert world.run(world.gmi()).end == "result"
    [path] = world.entries()
    DAMAGE[damage](path)
    outcome = world.run(world.gmi())
    # the entry's knowledge is lost, and the cloud's list still shows the job: it is found there and not paid again
    world.check("control", f"gmi: journal entry is {damage}", outcome, end="result", posts=1, accepted=1)
    assert outcome.value.request_id == world.cloud.jobs()[0]["id"]
    assert any("aside" in line or "damaged" in line or "unreadable" in line for line in outcome.lines), outcome.lines


def test_two_nodes_with_the_same_inputs_share_one_job(world):
    first, second = world.run_all([world.gmi(), world.gmi()])
    world.check("control", "gmi: the same inputs in two nodes", first, end="result", posts=1)
    assert second.end == "result"
    assert first.value.sha256 == second.value.sha256
    assert first.value.request_id == second.value.request_id


def test_two_nodes_with_different_inputs_run_at_once(world):
    world.real_time(0.02)
    world.cloud.always("gmi", "queued", "success", seconds=1.0)
    start = time.monotonic()
    outcomes = world.run_all([world.gmi(prompt="one"), world.gmi(prompt="two"), world.gmi(prompt="three")])
    took = time.monotonic() - start
    assert [outcome.end for outcome in outcomes] == ["result"] * 3
    world.check("control", "gmi: three nodes with different inputs", outcomes[0], end="result", posts=3, accepted=3)
    jobs = world.cloud.jobs()
    assert max(job["start"] for job in jobs) < min(job["end"] for job in jobs)
    assert took < 2.6  # three times one second would be 3


def test_forty_jobs_at_once_need_few_threads(world, monkeypatch):
    monkeypatch.setattr(watches, "LONG", 60.0)  # a busy machine makes no work count as one that hangs
    world.real_time(0.02)
    world.cloud.always("gmi", "queued", "success", seconds=0.5)
    most = [0]
    over = threading.Event()

    def look():
        while not over.wait(0.01):
            most[0] = max(most[0], threading.active_count())

    looking = threading.Thread(target=look)
    looking.start()
    outcomes = world.run_all([world.gmi(prompt=f"job {n}") for n in range(40)])
    over.set()
    looking.join()
    assert [outcome.end for outcome in outcomes] == ["result"] * 40
    world.check("control", "gmi: forty jobs at once", outcomes[0], end="result", posts=40, accepted=40, within=20)
    assert most[0] <= 40
    assert len({outcome.value.sha256 for outcome in outcomes}) == 40


def test_same_inputs_after_success_are_fetched_and_not_bought(world):
    first = world.run(world.gmi())
    again = world.run(world.gmi())
    world.check("control", "gmi: the same inputs after success", again, end="result", posts=1)
    assert (again.value.path, again.value.sha256) == (first.value.path, first.value.sha256)
    assert again.value.resumed


def test_a_lost_file_is_downloaded_again(world):
    first = world.run(world.wavespeed())
    first.value.path.unlink()
    again = world.run(world.wavespeed())
    world.check("control", "wavespeed: the file was deleted since", again, end="result", posts=1)
    assert again.value.path.read_bytes()
    assert len(world.cloud.records("file")) == 2


def test_a_changed_file_is_downloaded_again(world):
    first = world.run(world.gmi())
    first.value.path.write_bytes(b"damaged")
    again = world.run(world.gmi())
    world.check("control", "gmi: the file was damaged since", again, end="result", posts=1)
    assert again.value.sha256 == world.cloud.jobs()[0]["sha256"]


def test_an_expired_result_is_bought_again_only_as_another_take(world):
    first = world.run(world.wavespeed())
    first.value.path.unlink()
    world.cloud.faults("file", {"kind": "answer", "status": 410, "times": 0})
    again = world.run(world.wavespeed())
    world.check("control", "wavespeed: the result has expired", again, end="ResultExpired", posts=1, journal="done")
    world.cloud.faults("file")
    assert "set take to 2" in str(again.error)
    third = world.run(world.wavespeed(take=2))
    world.check("control", "wavespeed: the result has expired, take 2", third, end="result", posts=2, accepted=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "other"}, {"seed": 8}, {"video_length": 10}, {"prompt_extend": True}, {"first": image(9)},
        {"take": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_any_changed_input_is_a_new_job(world, changes):
    world.run(world.gmi(seed=7))
    outcome = world.run(world.gmi(**{"seed": 7, **changes}))
    world.check("control", f"gmi: another {next(iter(changes))}", outcome, end="result", posts=2, accepted=2)


def test_a_clip_that_is_here_is_used_with_any_key(world, monkeypatch):
    world.cloud.control(keys={"gmi": ["gmi-key-3f9a7c51e8d24b60", "second-key-77aa"]})
    world.run(world.gmi())
    monkeypatch.setenv("GMI_API_KEY", "second-key-77aa")
    outcome = world.run(world.gmi())
    world.check("control", "gmi: the same inputs with another key", outcome, end="result", posts=1)
    assert "second-key-77aa" not in outcome.text


def test_another_cloud_is_another_job(world):
    world.run(world.gmi())
    outcome = world.run(world.wavespeed())
    world.check("control", "the same inputs at the other cloud", outcome, end="result", posts=2, accepted=2)
    assert (world.cloud.accepted("gmi"), world.cloud.accepted("wavespeed")) == (1, 1)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_a_random_seed_is_drawn_here_and_told(world, provider):
    outcome = world.run(world.request(provider, seed=-1))
    [job] = world.cloud.jobs()
    assert 0 <= job["body"]["seed"] <= 2147483647
    assert outcome.value.seed == job["body"]["seed"]
    assert str(outcome.value.seed) in world.entries()[0].read_text()


def test_a_random_seed_interrupted_keeps_its_number(world):
    first = world.run(world.gmi(seed=-1), plan=["queued"], wait_seconds=60)
    assert first.end == "StillRunning"
    outcome = world.run(world.gmi(seed=-1), wait_seconds=60)
    assert outcome.end == "StillRunning"
    world.check(
        "control",
        "gmi: random seed, queued again while it runs",
        outcome,
        end="StillRunning",
        posts=1,
        journal="submitted",
    )


def test_unfinished_jobs_do_not_hold_the_loop(world):
    """A blocked worker thread must not hold up the end of the prompt."""

    async def both():
        world.cloud.faults("gmi.status", SLOW)
        running = asyncio.create_task(world.start(world.gmi()))
        while not world.cloud.records("gmi.status"):
            await asyncio.sleep(0.02)
        running.cancel()
        start = time.monotonic()
        await asyncio.gather(running, return_exceptions=True)
        return time.monotonic() - start

    assert asyncio.run(both()) < 5.5
