"""Unknown is never absent: a job that was made and whose answer was lost is not sent again, however its row looks."""

from __future__ import annotations

import pytest

from tests.wan_remote.fault_case import BOTH, GMI, WAVESPEED, answer, retry_after
from tests.wan_remote.stand_in.odd import STYLES
from wan_remote import GMIRequest, WaveSpeedRequest
from wan_remote.errors import InvalidRequest
from wan_remote.transport import Api

LOST = {"kind": "reset", "when": "after", "accept": True}
NOT_MADE = {"kind": "reset", "when": "after"}
PROMPT = "  a cafe\u0301 & a crane, unfolding for a long while in the morning sun \n"
NEVER_TOLD = ("no zone", "no times", "words", "no ids", "empty", "paged")  # the row can't be read, or is not there


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("provider", BOTH)
def test_a_lost_job_is_found_or_unknown_and_never_sent_again(world, provider, style):
    request = world.request(provider, prompt=PROMPT)
    other = world.run(world.request(provider, prompt="another"))  # so that the list is one of this account
    assert other.end == "result"
    world.advance(5000)
    world.cloud.settings(list_style=style)
    world.cloud.faults(f"{provider}.submit", LOST)
    ends = [world.run(request).end]
    for seconds in (150, 2000, 80000):
        world.advance(seconds)
        ends.append(world.run(request).end)
    assert (world.cloud.posts(), world.cloud.accepted()) == (2, 2)
    assert set(ends) <= {"result", "SubmissionUnknown"}
    if style in NEVER_TOLD:
        assert ends[-1] == "SubmissionUnknown"
    elif style not in ("rewritten", "late"):
        assert ends[0] == "result"


@pytest.mark.parametrize("style", ["no zone", "no times", "rewritten"])
def test_an_id_given_by_hand_belongs_to_the_inputs_from_then_on(world, style):
    world.cloud.settings(list_style=style)
    world.cloud.faults("gmi.submit", LOST)
    lost = world.run(world.gmi(seed=-1))
    [job] = world.cloud.jobs()
    if lost.end != "result":
        assert job["id"] in str(lost.error)
        assert "Fetch Result" in str(lost.error)
        assert "set take to 2" in str(lost.error)
    found = world.fetch(GMI, job["id"])
    assert found.end == "result"
    again = world.run(world.gmi(seed=-1))
    assert (again.end, again.value.request_id, again.value.path) == ("result", job["id"], found.value.path)
    assert (world.cloud.posts(), len(world.cloud.records("file"))) == (1, 1)


def test_an_id_of_long_ago_is_nobodys(world):
    old = world.run(world.gmi(prompt="of another machine"), state=world.tmp / "other", output=world.tmp / "its output")
    world.advance(90000)
    world.cloud.faults("gmi.submit", NOT_MADE)
    assert world.run(world.gmi()).end == "SubmissionUnknown"
    assert world.fetch(GMI, old.value.request_id).end == "result"
    assert "intent" in world.states()


def test_of_two_lost_ones_the_better_fit_gets_the_id(world):
    world.cloud.faults("gmi.submit", LOST, LOST)
    world.cloud.settings(list_style="no times")
    for prompt in ("one", "two"):
        assert world.run(world.gmi(prompt=prompt)).end == "SubmissionUnknown"
    for job in world.cloud.jobs():
        assert world.fetch(GMI, job["id"]).end == "result"
    for job in world.cloud.jobs():
        again = world.run(world.gmi(prompt=job["body"]["prompt"]))
        assert (again.end, again.value.request_id) == ("result", job["id"])
    assert world.cloud.accepted() == 2


@pytest.mark.parametrize("provider", BOTH)
def test_another_take_is_another_job_on_purpose(world, provider):
    world.cloud.faults(f"{provider}.submit", LOST)
    world.cloud.settings(list_style="empty")
    assert world.run(world.request(provider)).end == "SubmissionUnknown"
    second = world.run(world.request(provider, take=2))
    assert (second.end, second.value.take, world.cloud.accepted()) == ("result", 2, 2)
    assert world.run(world.request(provider, take=2)).value.request_id == second.value.request_id
    assert world.cloud.accepted() == 2


@pytest.mark.parametrize("take", [0, -1, 1.0, True, "2", 10000])
@pytest.mark.parametrize("make", [GMIRequest, WaveSpeedRequest])
def test_what_a_take_can_be(world, make, take):
    with pytest.raises(InvalidRequest, match="take=.* give a whole number from 1 to 9999"):
        world.request(make.provider, take=take)


def test_the_command_line_has_takes(world):
    world.cloud.always("gmi", "success")
    for more in ((), ("--take", "2"), ("--take", "2"), ()):
        assert world.command(GMI, *more).returncode == 0
    assert world.cloud.accepted() == 2
    told = world.cli("jobs").stdout
    assert "take 1" in told
    assert "take 2" in told


MADE_ALL_THE_SAME = {
    "429 with Retry-After": retry_after(GMI, 429, "1", accept=True),
    "429": answer(GMI, 429, "slow down", accept=True),
    "503 with Retry-After": retry_after(GMI, 503, "1", accept=True),
    "409": answer(GMI, 409, "already being processed", accept=True),
    "400 about images": answer(GMI, 400, "image cache write failed", accept=True),
}


@pytest.mark.parametrize("name", list(MADE_ALL_THE_SAME))
def test_the_list_is_looked_at_before_a_refused_submission_is_sent_again(world, name):
    world.cloud.faults("gmi.submit", MADE_ALL_THE_SAME[name])
    outcome = world.run(world.gmi())
    world.check("submit", f"gmi: {name}, and the job was made", outcome, end="result", posts=1)


@pytest.mark.parametrize("status", [307, 402, 404])
def test_it_is_looked_at_before_the_same_inputs_are_queued_again(world, status):
    world.cloud.faults("gmi.submit", answer(GMI, status, "no route", accept=True))
    assert world.run(world.gmi()).end not in ("result", "SubmissionUnknown")
    again = world.run(world.gmi())
    assert (again.end, world.cloud.posts()) == ("result", 1)


def test_a_refusal_is_not_taken_back_by_somebody_elses_job(world):
    """WaveSpeedAI's list repeats no inputs: a job that came at the time of a refusal is told and not taken."""
    world.cloud.faults("wavespeed.submit", retry_after(WAVESPEED, 429, "1", accept=True))
    outcome = world.run(world.wavespeed())
    [job] = world.cloud.jobs()
    assert outcome.end == "SubmissionUnknown"
    assert job["id"] in str(outcome.error)
    assert world.fetch(WAVESPEED, job["id"]).end == "result"
    assert world.run(world.wavespeed()).value.request_id == job["id"]
    assert world.cloud.posts() == 1


def test_a_refused_submission_is_not_sent_again_while_the_list_is_down(world):
    world.cloud.faults("gmi.submit", answer(GMI, 429, "slow down"))
    world.cloud.faults("gmi.list", {"kind": "answer", "status": 500, "text": "down", "times": 0})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.posts()) == ("SubmissionUnknown", 1)
    world.cloud.faults("gmi.list")
    assert world.run(world.gmi()).end == "result"


def test_what_it_said_in_place_of_an_id_is_told(world):
    world.cloud.faults("gmi.submit", {"kind": "answer", "json": {"error": "Insufficient credits. Please add more"}})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.posts()) == ("SubmissionUnknown", 1)
    assert "it said: Insufficient credits" in str(outcome.error)


def test_a_refusal_in_a_200_is_a_refusal_however_its_code_is_written(world):
    body = {"code": "402", "message": "insufficient balance", "data": None}
    world.cloud.faults("wavespeed.submit", {"kind": "answer", "json": body})
    outcome = world.run(world.wavespeed())
    assert (outcome.end, world.cloud.posts()) == ("NoCredit", 1)
    assert "insufficient balance" in str(outcome.error)


def test_an_error_beside_a_200_is_told(world):
    body = {"code": 200, "message": "success", "error": "queue is paused", "data": None}
    world.cloud.faults("wavespeed.submit", {"kind": "answer", "json": body})
    outcome = world.run(world.wavespeed())
    assert outcome.end == "SubmissionUnknown"
    assert "it said: queue is paused" in str(outcome.error)


def test_what_is_promised_of_fetch_result_is_kept(world):
    """A refused one is not given a job by hand, and is not said to be."""
    world.cloud.faults("wavespeed.submit", answer(WAVESPEED, 429, "slow down"))
    world.cloud.faults("wavespeed.list", {"kind": "answer", "status": 500, "text": "down", "times": 0})
    outcome = world.run(world.wavespeed())
    assert outcome.end == "SubmissionUnknown"
    assert "belongs to these inputs" not in str(outcome.error)


def test_what_took_minutes_to_send_and_was_refused_is_looked_for_all_that_time(world, monkeypatch):
    other = world.run(world.gmi(prompt="another"))  # so that the list is one of this account
    assert other.end == "result"
    world.advance(5000)
    real = Api.call

    def slow(self, method, path, **more):
        if method == "POST":
            world.advance(200)
        return real(self, method, path, **more)

    monkeypatch.setattr(Api, "call", slow)
    world.cloud.settings(list_style="no inputs")
    world.cloud.faults("gmi.submit", {**answer(GMI, 429, "slow down"), "accept": True})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.posts(), world.cloud.accepted()) == ("SubmissionUnknown", 2, 2)
