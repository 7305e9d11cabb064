"""An id whose job can't be told from another's is a guess: no other submission is absent for it, nor paid for again
when it fails.

Two takes, or two pairs of images, may have the same prompt and seed; WaveSpeedAI's list repeats neither.
"""

from __future__ import annotations

import json

import pytest

from tests.wan_remote.fault_case import BOTH, DOWN, GMI, LOST, NOT_MADE, WAVESPEED, answer

CONFLICT = answer(WAVESPEED, 409, "already there", accept=True)


def elsewhere(world, request, **given):
    """The same account, used from another machine."""
    return world.run(request, state=world.tmp / "other machine", output=world.tmp / "its output", **given)


def test_a_job_given_to_one_is_not_gone_for_the_other_that_it_may_be_of(world):
    """Refused while its job was made, with a list that can't be had; meanwhile another one is given that job's id."""
    mine, other = world.wavespeed(prompt="mine"), world.wavespeed(prompt="other")
    world.cloud.faults("wavespeed.submit", CONFLICT)
    world.cloud.faults("wavespeed.list", DOWN)
    assert world.run(mine).end == "SubmissionUnknown"
    world.cloud.faults("wavespeed.list")
    world.cloud.faults("wavespeed.submit", NOT_MADE)
    assert world.run(other).end == "SubmissionUnknown"
    [job] = world.cloud.jobs()
    assert world.fetch(WAVESPEED, job["id"]).end == "result"
    world.advance(5000)
    again = world.run(mine)
    assert (again.end, world.cloud.accepted()) == ("SubmissionUnknown", 1)
    assert job["id"] in str(again.error)


def test_the_inputs_that_an_id_fits_best_get_it_though_they_were_refused(world):
    world.cloud.faults("gmi.submit", answer(GMI, 409, "already there", accept=True), NOT_MADE)
    world.cloud.faults("gmi.list", DOWN)
    assert world.run(world.gmi(prompt="mine")).end == "SubmissionUnknown"
    assert world.run(world.gmi(prompt="other")).end == "SubmissionUnknown"
    world.cloud.faults("gmi.list")
    [job] = world.cloud.jobs()
    assert world.fetch(GMI, job["id"]).end == "result"
    assert world.run(world.gmi(prompt="mine")).value.request_id == job["id"]
    assert world.cloud.accepted() == 1


@pytest.mark.parametrize("provider", BOTH)
def test_a_guess_that_failed_is_no_reason_to_pay_again(world, provider):
    """Its own job is there still; what failed was somebody else's."""
    world.lose(provider)
    [mine] = world.cloud.jobs()
    assert elsewhere(world, world.request(provider, prompt="its"), plan=["failed"]).end == "JobFailed"
    assert world.fetch(provider, world.cloud.jobs()[1]["id"]).end == "JobFailed"
    again = world.run(world.request(provider))
    assert (again.end, world.cloud.accepted()) == ("result", 2)
    assert again.value.request_id == mine["id"]


def test_a_guess_that_failed_is_sent_again_once_the_list_shows_no_other(world):
    world.cloud.plan(WAVESPEED, "failed")
    world.lose(WAVESPEED)
    [job] = world.cloud.jobs()
    assert world.run(world.wavespeed(prompt="another")).end == "result"
    assert world.fetch(WAVESPEED, job["id"]).end == "JobFailed"
    world.advance(1000)
    assert world.run(world.wavespeed()).end == "result"
    assert world.cloud.accepted() == 3


def test_a_job_of_the_same_words_may_be_of_another_take(world):
    """The one that was not made must not take the job of the one that was."""
    world.cloud.faults("gmi.submit", NOT_MADE, LOST)
    world.cloud.faults("gmi.list", DOWN)
    for take in (1, 2):
        assert world.run(world.gmi(take=take)).end == "SubmissionUnknown"
    world.cloud.faults("gmi.list")
    [job] = world.cloud.jobs()
    outcomes = [world.run(world.gmi(take=take)) for take in (1, 2)]
    assert [outcome.end for outcome in outcomes] == ["SubmissionUnknown"] * 2
    assert all(job["id"] in str(outcome.error) for outcome in outcomes)
    assert world.fetch(GMI, job["id"]).end == "result"
    world.advance(5000)
    assert sorted(world.run(world.gmi(take=take)).end for take in (1, 2)) == ["SubmissionUnknown", "result"]
    assert world.cloud.accepted() == 1


def test_without_times_the_same_words_decide(world):
    world.cloud.faults("gmi.submit", LOST, LOST)
    world.cloud.settings(list_style="no times")
    for prompt in ("one", "two"):
        assert world.run(world.gmi(prompt=prompt)).end == "SubmissionUnknown"
    world.cloud.faults("gmi.status", {"kind": "edit", "drop": ["created_at"], "times": 0})
    for job in reversed(world.cloud.jobs()):
        assert world.fetch(GMI, job["id"]).end == "result"
    for job in world.cloud.jobs():
        assert world.run(world.gmi(prompt=job["body"]["prompt"])).value.request_id == job["id"]


def test_a_record_of_another_job_settles_no_submission(world):
    """It was asked for by the id of the job; what came back names somebody else's."""
    world.lose(GMI)
    [job], [path] = world.cloud.jobs(), world.entries()
    edit = {"kind": "edit", "put": {"request_id": "somebody-elses"}, "times": 0}
    world.cloud.faults("gmi.status", edit)
    assert world.fetch(GMI, job["id"]).end == "BadResponse"
    row = json.loads(path.read_text("utf-8"))
    assert (row["state"], row["id"]) == ("intent", "")
