"""An account that has as many jobs at once as it may have: those of this machine wait in line, and all arrive."""

from __future__ import annotations

import asyncio

from tests.wan_remote.fault_case import GMI, answer, retry_after
from tests.wan_remote.world import TestWatch
from wan_remote import submission
from wan_remote.line import Place, place
from wan_remote.reconcile import Look


def test_jobs_beyond_the_accounts_limit_arrive_in_order(world):
    world.real_time(0.02)
    world.cloud.settings(room=1)
    world.cloud.plan(GMI, "queued")  # until all the others stand in line
    world.cloud.always(GMI, "success")
    seen = [TestWatch() for _ in range(6)]

    def waiting() -> int:
        return sum(any("no room" in line for line in watch.lines) for watch in seen)

    async def main() -> list[object]:
        runs = [
            asyncio.ensure_future(world.start(world.gmi(prompt=f"job {n}"), watch, wait_seconds=10000.0))
            for n, watch in enumerate(seen)
        ]
        while waiting() < 5:
            await asyncio.sleep(0.05)
        world.cloud.control(finish="success")
        return list(await asyncio.gather(*runs))

    assert len({result.request_id for result in asyncio.run(main())}) == world.cloud.accepted() == 6
    order = [int(job["body"]["prompt"].split()[1]) for job in world.cloud.jobs()]
    assert order[1:] == sorted(order[1:])
    lines = [line for watch in seen for line in watch.lines]
    assert any("waiting before this one" in line for line in lines)
    assert any("this one is next, in" in line for line in lines)


def test_who_looks_for_his_own_job_in_the_list_holds_up_nobody(world, monkeypatch):
    world.real_time(0.02)
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many concurrent tasks"))

    async def look_for(_session, entry):  # one row, which another submission could have made just as well
        unsure = entry.parameters["prompt"] == "unsure"
        return Look(perhaps=("a-row",), shared=True) if unsure else Look(clear=True)

    monkeypatch.setattr(submission, "look_for", look_for)
    seen = TestWatch()

    async def main() -> bool:
        unsure = asyncio.ensure_future(world.start(world.gmi(prompt="unsure"), seen))
        while not unsure.done() and not any("looking at the list" in line for line in seen.lines):
            await asyncio.sleep(0.02)
        assert not unsure.done(), unsure.exception()
        assert await world.start(world.gmi(prompt="later"), TestWatch())
        still = not unsure.done()
        await asyncio.gather(unsure, return_exceptions=True)
        return still

    assert asyncio.run(main())


def test_the_limit_is_waited_out_and_told(world):
    world.cloud.faults("gmi.submit", answer(GMI, 429, "too many concurrent tasks", times=20))
    outcome = world.run(world.gmi())
    world.check("submit", "gmi: 429 without Retry-After, twenty times", outcome, end="result", posts=21)
    assert world.clock.elapsed > 240
    told = next(line for line in outcome.lines if "no room" in line)
    assert "waited 0 s of 30 minutes. Nothing was made so far" in told


def test_a_wait_that_is_asked_for_is_waited_if_there_is_patience(world):
    world.cloud.faults("gmi.submit", retry_after(GMI, 429, "600"))
    outcome = world.run(world.gmi(), wait_seconds=900.0)
    assert outcome.end == "result"
    assert 600 <= world.clock.elapsed
    world.cloud.faults("gmi.submit", retry_after(GMI, 429, "600"))
    short = world.run(world.gmi(prompt="another"), wait_seconds=300.0)
    assert short.end == "RateLimited"
    assert "10 minutes" in str(short.error)


def test_a_cloud_that_asks_for_no_wait_is_not_flooded(world):
    world.cloud.faults("gmi.submit", retry_after(GMI, 429, "0", times=0))
    assert world.run(world.gmi(), wait_seconds=10.0).end == "RateLimited"
    assert world.cloud.posts() <= 12


def test_who_came_first_is_first(tmp_path):
    first, second = Place(tmp_path, 1), Place(tmp_path, 2)
    assert (first.before(), second.before()) == (0, 0)
    second.stand()
    assert first.before() == 0
    first.stand()
    assert second.before() == 1
    with place(tmp_path, 10) as third:
        third.stand()
        assert third.before() == 2
    first.leave()
    assert second.before() == 0
    second.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_place_whose_process_is_gone_is_free(tmp_path):
    left = Place(tmp_path, 1)
    left.stand()
    [held] = tmp_path.iterdir()
    left.leave()
    held.touch()
    assert Place(tmp_path, 2).before() == 0
    assert list(tmp_path.iterdir()) == []
