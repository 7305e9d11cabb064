"""Several clips at once: in order, each paid once, and no failure or stop costs another's result."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import wan_remote
from tests.wan_remote.fault_case import BOTH, DOWN, GMI, LOST, answer
from tests.wan_remote.world import TestWatch, World
from wan_remote import many
from wan_remote.errors import AuthError, JobFailed, NoCredit, NotSent, RateLimited, SomeFailed


def run_all(world: World, requests: list[wan_remote.Request], watch: TestWatch | None = None, provider=GMI, **more):
    folders = wan_remote.Folders(state=world.state, output=world.output)
    makes = [lambda request=request: request for request in requests]
    given = {"folders": folders, "watch": watch or TestWatch(), "clock": world.clock, "keys": world.keys, **more}
    return asyncio.run(wan_remote.run_all(provider, makes, **given))


def prompts(world: World) -> dict[str, str]:
    return {job["id"]: job["body"]["prompt"] for job in world.cloud.jobs()}


def test_all_arrive_in_order_whatever_the_account_takes_at_once(world):
    world.real_time(0.02)
    world.cloud.settings(room=2)
    world.cloud.always(GMI, "processing", "success")
    watch = TestWatch()
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(12)], watch)
    asked = prompts(world)
    assert [asked[result.request_id] for result in made] == [f"clip {number}" for number in range(12)]
    assert world.cloud.accepted() == 12
    firsts = [line.splitlines()[0] for line in watch.lines]
    assert firsts[-1] == "12 of 12 done"
    assert any(first.endswith("2 in the cloud, 10 waiting") for first in firsts)


def test_a_failure_loses_no_other_clip_and_a_resume_buys_only_that_one(world):
    world.cloud.always(GMI, "success")
    requests = [world.gmi(prompt=f"clip {number}") for number in range(4)]
    world.cloud.faults("gmi.submit", answer(GMI, 400, "the prompt is not liked"))
    watch = TestWatch()
    made = run_all(world, requests, watch)
    failed = [isinstance(outcome, wan_remote.RemoteError) for outcome in made]
    assert sum(failed) == 1
    assert world.cloud.accepted() == 3
    with pytest.raises(SomeFailed) as told:
        wan_remote.all_of(made)
    which = str(failed.index(True) + 1)
    first, second = str(told.value).splitlines()
    assert first == (
        "1 of 4 clips failed; what is here (3) is kept and costs nothing more when the same inputs are queued again"
    )
    assert second.startswith(f"{which}: GMI Cloud refused the request: the prompt is not liked")
    assert any(f"{which} failed: GMI Cloud refused" in line for line in watch.lines)
    again = wan_remote.all_of(run_all(world, requests))
    assert world.cloud.accepted() == 4
    assert [result.resumed for result in again] == [not one for one in failed]
    assert [prompts(world)[result.request_id] for result in again] == [f"clip {number}" for number in range(4)]


def test_a_conflict_waits_for_none_who_waits_for_it(world):
    """The one that found no room stands in line before it, and is sent only when it is known how that one ended."""
    world.real_time(0.02)
    world.cloud.always(GMI, "success")
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many"), answer(GMI, 409, "conflict"))
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(3)], wait_seconds=400.0)
    failed = [str(outcome) for outcome in made if isinstance(outcome, wan_remote.RemoteError)]
    assert len(failed) == 1
    assert "conflict" in failed[0]
    assert world.cloud.accepted() == 2


def test_equal_reasons_are_told_once(world):
    world.cloud.control(keys={GMI: ["another"]})
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(3)])
    with pytest.raises(SomeFailed) as told:
        wan_remote.all_of(made, ["a", "b", "c"])
    first, second = str(told.value).splitlines()
    assert first == "3 of 3 clips failed; none is here"
    assert second.startswith("a, b, c: GMI Cloud does not take the key")


def test_one_alone_says_what_it_always_said(world):
    world.cloud.plan(GMI, {"status": "failed", "at_submit": True, "error": "out of memory"})
    [outcome] = run_all(world, [world.gmi()])
    with pytest.raises(JobFailed, match="out of memory"):
        wan_remote.all_of([outcome])


def test_equal_inputs_are_one_clip(world):
    world.cloud.always(GMI, "success")
    one, two = run_all(world, [world.gmi(), world.gmi()])
    assert (one.request_id, world.cloud.accepted()) == (two.request_id, 1)


def test_a_stop_ends_all_and_the_same_list_goes_on(world):
    world.real_time(0.05)
    world.cloud.settings(room=2)
    world.cloud.always(GMI, "processing")
    requests, watch = [world.gmi(prompt=f"clip {number}") for number in range(5)], TestWatch()

    def press() -> None:
        for _ in range(3000):
            if any(line.startswith("0 of 5 done, 2 in the cloud") for line in list(watch.lines)):
                break
            watch.stopped.wait(0.01)
        watch.stopped.set()

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(wan_remote.Interrupted) as told:
        run_all(world, requests, watch)
    finger.join()
    assert str(told.value).startswith(
        "stopped; clips that are here: 0 of 5, and in the cloud: 2: queue the same inputs"
    )
    world.cloud.settings(room=0)
    world.cloud.control(finish="success")
    world.cloud.always(GMI, "success")
    made = wan_remote.all_of(run_all(world, requests))
    assert (len(made), world.cloud.accepted()) == (5, 5)


def test_patience_for_room_begins_anew_while_others_of_the_list_get_further(world):
    """Each of ten takes nearly all of the patience: one after the other they take ten times that."""
    world.real_time(0.01)
    world.cloud.settings(room=1)
    world.cloud.always(GMI, "processing", "success", seconds=0.6)  # 60 s of the clock
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(4)], wait_seconds=100.0)
    assert [type(outcome).__name__ for outcome in made] == ["Result"] * 4


@pytest.mark.parametrize("provider", BOTH)
def test_after_a_lost_answer_no_other_of_the_list_is_sent(world, provider):
    """As through a proxy that breaks every answer: one clip is perhaps paid for, not all of them."""
    world.cloud.always(provider, "success" if provider == GMI else "completed")
    requests = [world.request(provider, prompt=f"clip {number}") for number in range(10)]
    assert world.run(requests[7]).end == "result"
    world.cloud.faults(f"{provider}.submit", {**LOST, "times": 0})
    world.cloud.faults(f"{provider}.list", DOWN)
    made = run_all(world, requests, provider=provider)
    assert world.cloud.accepted() == 2
    kinds = [type(outcome).__name__ for outcome in made]
    assert (kinds.count("SubmissionUnknown"), kinds.count("NotSent"), kinds[7]) == (1, 8, "Result")
    told = str(next(outcome for outcome in made if isinstance(outcome, NotSent)))
    assert f"whether {kinds.index('SubmissionUnknown') + 1} was taken" in told
    world.cloud.faults(f"{provider}.submit")
    world.cloud.faults(f"{provider}.list")
    world.advance(300)
    again = run_all(world, requests, provider=provider)
    assert [type(outcome).__name__ for outcome in again] == ["Result"] * 10
    assert world.cloud.accepted() == 10


@pytest.mark.parametrize(("status", "kind"), [(401, AuthError), (402, NoCredit)])
def test_what_the_account_can_do_for_none_is_asked_once(world, status, kind):
    world.cloud.faults("gmi.submit", answer(GMI, status, "no", times=0))
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(10)])
    assert {type(outcome) for outcome in made} == {kind}
    assert len({str(outcome) for outcome in made}) == 1
    assert world.cloud.posts() == 1


def test_no_room_at_all_ends(world):
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many concurrent tasks", times=0))
    made = run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(3)], wait_seconds=60.0)
    assert [type(outcome) for outcome in made] == [RateLimited] * 3
    assert world.cloud.accepted() == 0


def test_few_stand_at_the_door_and_the_images_of_others_are_not_read_yet(world, monkeypatch):
    world.real_time(0.02)
    monkeypatch.setattr(many, "MOST_UNSENT", 2)
    world.cloud.settings(room=1)
    world.cloud.always(GMI, "queued")
    read: list[int] = []
    folders = wan_remote.Folders(state=world.state, output=world.output)

    def make(number: int) -> wan_remote.Request:
        read.append(number)
        return world.gmi(prompt=f"clip {number}")

    async def main() -> list[int]:
        makes = [lambda number=number: make(number) for number in range(8)]
        watch = TestWatch()
        more = {"folders": folders, "watch": watch, "clock": world.clock, "keys": world.keys}
        running = asyncio.ensure_future(wan_remote.run_all(GMI, makes, **more))
        while len(read) < 3 or not any("this one is next" in line for line in watch.lines):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # for a fourth, which must not come
        seen = list(read)
        watch.stopped.set()
        with pytest.raises(wan_remote.Interrupted):
            await running
        return seen

    assert len(asyncio.run(main())) == 3  # one in the cloud, two at the door


def test_nothing_is_sent_where_nothing_can_be_kept(world):
    world.output.mkdir()
    (world.output / GMI).write_text("in the way")
    with pytest.raises(wan_remote.RemoteError, match="nothing was sent"):
        run_all(world, [world.gmi(prompt=f"clip {number}") for number in range(3)])
    assert world.cloud.records() == []
    assert not list(Path(world.state).rglob("*.json"))


def test_a_long_list_of_young_jobs_reaches_back_to_one_of_ours_and_so_to_the_refusal(world):
    """A new account: more rows than a list may have that is surely not cut off, all of the last minute."""
    world.cloud.always(GMI, "success")
    for number in range(12):
        assert world.run(world.gmi(prompt=f"clip {number}")).end == "result"
    world.advance(5.0)
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many concurrent tasks", times=2))
    outcome = world.run(world.gmi(prompt="the next one"))
    assert (outcome.end, world.cloud.accepted()) == ("result", 13)


@pytest.mark.parametrize("style", ["backwards", "no times", "no ids"])
def test_a_long_list_that_is_not_understood_or_in_another_order_proves_no_such_thing(world, style):
    world.cloud.always(GMI, "success")
    for number in range(12):
        assert world.run(world.gmi(prompt=f"clip {number}")).end == "result"
        world.advance(1.0)
    world.advance(5.0)
    world.cloud.settings(list_style=style)
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many concurrent tasks", times=2))
    outcome = world.run(world.gmi(prompt="the next one"))
    assert (outcome.end, world.cloud.accepted()) == ("SubmissionUnknown", 12)
