"""What is said to somebody who has paid is what happens next."""

from __future__ import annotations

import asyncio

import pytest

import wan_remote
from tests.wan_remote.fault_case import BOTH, GMI, WAVESPEED
from tests.wan_remote.world import TestWatch
from wan_remote.journal import Journal

BOUGHT_AGAIN = "for a new job, which is paid for anew"


def test_a_guess_that_failed_says_that_queueing_again_looks_and_does_not_pay(world):
    world.cloud.plan(WAVESPEED, "failed")
    world.lose(WAVESPEED)
    found = world.run(world.wavespeed())  # by the list, which repeats no inputs
    assert found.end == "JobFailed"
    assert "Its id was only guessed" in str(found.error)
    assert "nothing is sent or paid for again while it may be there" in str(found.error)
    assert BOUGHT_AGAIN not in str(found.error)
    assert world.run(world.wavespeed()).end == "SubmissionUnknown"
    assert world.cloud.accepted() == 1


@pytest.mark.parametrize("provider", BOTH)
def test_a_job_of_ones_own_that_failed_says_that_queueing_again_pays(world, provider):
    outcome = world.run(world.request(provider), plan=["failed"])
    assert str(outcome.error).endswith(BOUGHT_AGAIN)


@pytest.mark.parametrize("provider", BOTH)
def test_a_job_from_elsewhere_that_failed_speaks_of_no_inputs(world, provider):
    assert world.run(world.request(provider), plan=["failed"], state=world.tmp / "elsewhere").end == "JobFailed"
    told = world.fetch(provider, world.cloud.jobs()[0]["id"])
    assert str(told.error).endswith("it was not sent from here, so it can't be made again here")
    assert "same inputs" not in str(told.error)


def test_a_withheld_clip_from_elsewhere_speaks_of_no_inputs(world):
    withheld = {"status": "completed", "outputs": [], "has_nsfw_contents": [True]}
    assert world.run(world.wavespeed(), plan=[withheld], state=world.tmp / "elsewhere").end == "Moderated"
    told = world.fetch(WAVESPEED, world.cloud.jobs()[0]["id"])
    assert (told.end, "same inputs" in str(told.error)) == ("Moderated", False)


def test_who_collects_a_job_says_whom_he_waits_for(world):
    world.lose(GMI)
    [job], [entry] = world.cloud.jobs(), world.entries()
    watch, journal = TestWatch(), Journal(folder=world.state / "jobs")
    folders = wan_remote.Folders(state=world.state, output=world.output)

    async def main() -> None:
        async with journal.alone(entry.stem, TestWatch()):
            collecting = wan_remote.fetch(GMI, job["id"], folders=folders, watch=watch, keys=world.keys)
            task = asyncio.ensure_future(collecting)
            for _ in range(1000):
                if watch.lines:
                    break
                await asyncio.sleep(0.01)
            watch.stopped.set()
            await asyncio.wait({task})
            assert isinstance(task.exception(), wan_remote.Interrupted)

    asyncio.run(main())
    assert watch.lines[0] == f"a run that may have sent {job['id']} is under way; waiting for it"


@pytest.mark.parametrize("place", ["https://192.168.1.5/v.mp4", "ftp://files.example.com/v.mp4"])
def test_a_clip_that_can_not_be_fetched_says_that_it_is_paid_and_stays(world, place):
    world.cloud.always(GMI, "success")
    world.cloud.faults("gmi.status", {"kind": "edit", "times": 0, "put": {"outcome.video_url": place}})
    outcome = world.run(world.gmi())
    [job] = world.cloud.jobs()
    said = f"; the job {job['id']} is paid for and stays in the cloud: queue the same inputs again"
    assert str(outcome.error).endswith(said), outcome.error
    world.cloud.faults("gmi.status")
    assert (world.run(world.gmi()).end, world.cloud.accepted()) == ("result", 1)
