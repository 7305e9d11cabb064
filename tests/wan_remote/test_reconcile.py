"""Unknown is never absent: a job that was made and whose answer was lost is not sent again, however its row looks."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from tests.wan_remote.cloud_lists import gmi_rows, show, wavespeed_rows
from tests.wan_remote.fault_case import BOTH, DONE, DOWN, GMI, LOST, NOT_MADE, POLL, WAVESPEED, answer, retry_after
from tests.wan_remote.stand_in.odd import STYLES
from tests.wan_remote.world import image
from wan_remote import uploads
from wan_remote.transport import Api

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

    def slow(self, call, **more):
        if call.method == "POST":
            world.advance(200)
        return real(self, call, **more)

    monkeypatch.setattr(Api, "call", slow)
    world.cloud.settings(list_style="no inputs")
    world.cloud.faults("gmi.submit", {**answer(GMI, 429, "slow down"), "accept": True})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.posts(), world.cloud.accepted()) == ("SubmissionUnknown", 2, 2)


VARIABLE = {GMI: "GMI_API_KEY", WAVESPEED: "WAVESPEED_API_KEY"}


@pytest.mark.parametrize("provider", BOTH)
def test_what_was_not_made_is_sent_once_the_list_had_its_time(world, provider):
    """The other side: a list that shows another job of ours, is understood and lacks this one lets it be sent."""
    assert world.run(world.request(provider, prompt="another")).end == "result"
    world.cloud.faults(f"{provider}.submit", NOT_MADE)
    first = world.run(world.request(provider))
    assert first.end == "SubmissionUnknown"
    assert "in 15 minutes" in str(first.error)
    world.advance(600)
    assert world.run(world.request(provider)).end == "SubmissionUnknown"
    world.advance(400)
    outcome = world.run(world.request(provider))
    name = f"{provider}: lost before it was taken, then sent"
    world.check("submit", name, outcome, end="result", posts=3, accepted=2)


@pytest.mark.parametrize("provider", BOTH)
def test_what_is_older_than_the_list_goes_back_is_not_sent_again(world, provider):
    """WaveSpeedAI's holds seven days; of GMI Cloud's nothing is known but what it shows."""
    world.lose(provider)
    world.advance(8 * 86400)
    assert world.run(world.request(provider, prompt="another, today")).end == "result"
    if provider == GMI:
        show(world, GMI, {"requests": gmi_rows(world)[:1]})
    outcome = world.run(world.request(provider))
    assert (outcome.end, world.cloud.accepted()) == ("SubmissionUnknown", 2)
    assert "sent 8 days ago, and its list may show nothing as old as that" in str(outcome.error)
    assert "set take to 2" in str(outcome.error)


def test_the_first_job_of_an_account_is_sent_again_though_its_list_has_nothing_older(world):
    """A list shows every job for a day: there will never be a row from before the first."""
    world.cloud.always(GMI, "success")
    world.cloud.faults("gmi.submit", NOT_MADE)
    assert world.run(world.gmi()).end == "SubmissionUnknown"
    world.advance(60)
    assert world.run(world.gmi(prompt="another")).end == "result"
    world.advance(1000)
    assert world.run(world.gmi()).end == "result"
    assert world.cloud.accepted() == 2


@pytest.mark.parametrize("hours", [1, -1, 7])
@pytest.mark.parametrize("provider", BOTH)
def test_a_clock_that_was_corrected_buys_nothing(world, provider, hours):
    world.lose(provider)
    world.clock.jump(3600 * hours)
    world.advance(150)
    outcome = world.run(world.request(provider))
    world.check("control", f"{provider}: clock corrected by {hours} h", outcome, end="result", posts=1)


def test_a_machine_that_slept_before_it_was_sent_buys_nothing_again(world, monkeypatch):
    """Its steady clock stood still meanwhile, so that the cloud's last word on the time is 30 hours old."""
    assert world.run(world.wavespeed(prompt="before")).end == "result"
    rows, slept, real, images = wavespeed_rows(world), [0.0], uploads.put, []
    awake = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + slept[0])
    monkeypatch.setattr("wan_remote.transport.api.time", awake)
    world.advance(3600)

    def put(*given):
        images.append(given)
        if len(images) == 2:
            slept[0] = 30 * 3600.0
            world.advance(slept[0])
        return real(*given)

    monkeypatch.setattr(uploads, "put", put)
    mine = world.wavespeed(prompt="mine", first=image(3, 480, 832), last=image(4, 480, 832))
    world.cloud.faults("wavespeed.submit", LOST)
    show(world, WAVESPEED, rows)  # it is a little late
    assert world.run(mine).end == "SubmissionUnknown"
    world.advance(30)
    assert world.run(mine).end == "SubmissionUnknown"
    world.cloud.faults("wavespeed.list")
    assert (world.run(mine).end, world.cloud.accepted()) == ("result", 2)


@pytest.mark.parametrize("provider", BOTH)
def test_a_new_key_collects_the_job_of_the_old_one(world, monkeypatch, provider):
    world.cloud.faults(POLL[provider], {"kind": "pass"}, answer(provider, 401, "invalid key"))
    assert world.run(world.request(provider), plan=["processing"] * 3 + [DONE[provider]]).end == "AuthError"
    world.cloud.control(keys={provider: ["the-new-key-111111"]})
    monkeypatch.setenv(VARIABLE[provider], "the-new-key-111111")
    outcome = world.run(world.request(provider))
    world.check("control", f"{provider}: the key was replaced", outcome, end="result", posts=1)
    assert outcome.value.resumed


def test_an_answer_lost_with_the_old_key_is_looked_for_with_the_new_one(world, monkeypatch):
    world.lose(GMI)
    world.cloud.control(keys={GMI: ["the-new-key-111111"]})
    monkeypatch.setenv("GMI_API_KEY", "the-new-key-111111")
    outcome = world.run(world.gmi())
    world.check("control", "gmi: the key was replaced after a lost answer", outcome, end="result", posts=1)


@pytest.mark.parametrize(("status", "end"), [(401, "result"), (402, "result"), (404, "SubmissionUnknown")])
def test_another_account_buys_what_the_first_could_not_pay(world, monkeypatch, status, end):
    """Its list shows nothing of the first one's, which proves nothing; where that has no money nothing is to prove."""
    assert world.run(world.wavespeed(prompt="bought with the first")).end == "result"
    world.advance(3600)
    world.cloud.faults("wavespeed.submit", answer(WAVESPEED, status, "no"))
    assert world.run(world.wavespeed()).end not in ("result", "SubmissionUnknown")
    world.cloud.control(keys={WAVESPEED: ["the-new-key-111111"]})
    monkeypatch.setenv("WAVESPEED_API_KEY", "the-new-key-111111")
    [row] = wavespeed_rows(world, "the-new-key-111111")["data"]["items"]
    show(world, WAVESPEED, {"code": 200, "message": "success", "data": {"items": [{**row, "id": "wa-of-the-second"}]}})
    asked = len(world.cloud.records("wavespeed.list"))
    outcome = world.run(world.wavespeed())
    assert (outcome.end, world.cloud.accepted()) == (end, 2 if end == "result" else 1)
    if end != "result":
        assert "it was refused with another key" in str(outcome.error)
        assert len(world.cloud.records("wavespeed.list")) - asked <= 2


def test_another_organisation_that_may_not_see_it_does_not_lose_it(world, monkeypatch):
    first = world.run(world.gmi(), plan=["queued"] * 9 + ["success"], wait_seconds=10)
    assert first.end == "StillRunning"
    monkeypatch.setenv("GMI_ORG_ID", "other-org")
    world.cloud.faults("gmi.status", answer(GMI, 404, "not found", times=0))
    world.cloud.faults("gmi.submit", answer(GMI, 404, "not found", times=0))
    elsewhere = world.run(world.gmi())
    assert elsewhere.end == "JobGone"
    assert "another key" in str(elsewhere.error)
    monkeypatch.delenv("GMI_ORG_ID")
    world.cloud.faults("gmi.status")
    world.cloud.faults("gmi.submit")
    outcome = world.run(world.gmi())
    assert (outcome.end, outcome.value.resumed, world.cloud.accepted()) == ("result", True, 1)


@pytest.mark.parametrize("provider", BOTH)
def test_if_it_cannot_be_told_whose_it_is_nothing_is_bought(world, monkeypatch, provider):
    assert world.run(world.request(provider), plan=["queued"], wait_seconds=30).end == "StillRunning"
    world.cloud.control(keys={provider: ["the-new-key-111111"]})
    monkeypatch.setenv(VARIABLE[provider], "the-new-key-111111")
    world.cloud.faults(POLL[provider], DOWN)
    assert world.run(world.request(provider)).end == "StillRunning"
    assert world.cloud.accepted() == 1


@pytest.mark.parametrize("status", [408, 425, 499])
@pytest.mark.parametrize("provider", BOTH)
def test_a_gateway_that_gave_up_waiting_refuses_nothing(world, provider, status):
    world.cloud.faults(f"{provider}.submit", answer(provider, status, "upstream timeout", accept=True))
    outcome = world.run(world.request(provider))
    world.check("submit", f"{provider}: {status} to the submission, the job was made", outcome, end="result", posts=1)


def test_a_failed_job_of_the_same_inputs_is_not_the_one_that_was_lost(world):
    assert world.run(world.gmi(), plan=["failed"]).end == "JobFailed"
    world.cloud.faults("gmi.submit", LOST)
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.accepted()) == ("result", 2)
    assert outcome.value.request_id == world.cloud.jobs()[1]["id"]


def test_another_machines_job_is_not_taken(world):
    other = world.run(world.wavespeed(prompt="its"), state=world.tmp / "other machine", output=world.tmp / "its output")
    world.advance(20)
    world.cloud.faults("wavespeed.submit", NOT_MADE)
    mine = world.run(world.wavespeed(prompt="mine"))
    assert (other.end, mine.end) == ("result", "SubmissionUnknown")
    assert "set take to 2" in str(mine.error)
    world.advance(300)
    assert world.run(world.wavespeed(prompt="mine")).end == "SubmissionUnknown"  # it may be ours after all
    assert world.cloud.accepted() == 1


def test_two_lost_at_once_say_how_to_go_on(world):
    requests_of_two = [world.wavespeed(prompt="a"), world.wavespeed(prompt="b")]
    world.cloud.faults("wavespeed.submit", LOST, LOST)
    world.cloud.faults("wavespeed.list", DOWN)
    for request in requests_of_two:
        world.run(request)
    world.cloud.faults("wavespeed.list")
    outcomes = [world.run(request) for request in requests_of_two]
    assert [outcome.end for outcome in outcomes] == ["SubmissionUnknown"] * 2
    for outcome in outcomes:
        assert all(job["id"] in str(outcome.error) for job in world.cloud.jobs())
        assert "Fetch Result" in str(outcome.error)
        assert "set take to 2" in str(outcome.error)


def test_a_job_that_was_collected_by_its_id_is_still_the_lost_one(world):
    world.lose(GMI)
    [job] = world.cloud.jobs()
    assert world.fetch(GMI, job["id"]).end == "result"
    outcome = world.run(world.gmi())
    assert (outcome.end, outcome.value.request_id, world.cloud.accepted()) == ("result", job["id"], 1)


def test_a_list_that_lacks_a_later_job_of_ours_proves_nothing(world):
    assert world.run(world.gmi(prompt="before")).end == "result"
    before = gmi_rows(world)
    world.advance(2000)
    world.lose(GMI)
    assert world.run(world.gmi(prompt="after")).end == "result"
    world.advance(2000)
    show(world, GMI, {"requests": before})  # it lags
    assert world.run(world.gmi()).end == "SubmissionUnknown"
    world.cloud.faults("gmi.list")
    assert world.run(world.gmi()).end == "result"
    assert world.cloud.accepted() == 3


def test_what_was_found_at_the_first_look_stays_found(world):
    """The list tells the cloud's time; what it already gave is not asked for a second time."""
    world.cloud.faults("gmi.submit", LOST)
    world.cloud.faults("gmi.list", {"kind": "pass"}, DOWN)
    assert world.run(world.gmi()).end == "result"
    [path] = world.entries()
    assert json.loads(path.read_text())["id"] == world.cloud.jobs()[0]["id"]
