"""What can go wrong with the one request that costs money. In every case: at most one accepted submission."""

from __future__ import annotations

import shutil
import socket
import time
from email.utils import formatdate

import pytest
import requests

from tests.wan_remote.fault_case import (
    BOTH,
    GMI,
    LOST,
    NOT_MADE,
    WAVESPEED,
    Again,
    Case,
    answer,
    each,
    retry_after,
    submit,
)
from wan_remote.transport import Api

TRUNCATED = '{"request_id": "gm-1", "stat'


PREFIX = {GMI: "", WAVESPEED: "data."}

ID = {GMI: "request_id", WAVESPEED: "data.id"}

TERMINAL = {GMI: "success", WAVESPEED: "completed"}


def refused(name: str, status: int, end: str, text: str, *says: str, **more: object) -> list[Case]:
    """A definite refusal: nothing was made, nothing is sent again by itself; queued again it is a new submission."""
    return each(
        lambda p: Case(
            name=name,
            provider=p,
            faults=submit(p, answer(p, status, text)),
            end=end,
            posts=1,
            accepted=0,
            journal="rejected",
            says=says,
            again=Again(posts=2),
            **more,  # type: ignore[arg-type]
        )
    )


def adopted(name: str, fault: dict[str, object], providers: tuple[str, ...] = BOTH) -> list[Case]:
    """The answer was lost and the job was made: it is found in the cloud's list and not submitted again."""
    listed = {GMI: "gmi.list", WAVESPEED: "wavespeed.list"}
    return each(
        lambda p: Case(
            name=name,
            provider=p,
            faults=submit(p, fault),
            asked={listed[p]: (1, 5)},
            again=Again(posts=1),
        ),
        providers,
    )


def unknown(name: str, fault: dict[str, object]) -> list[Case]:
    """The answer was lost and no job was made. The list is empty, which proves nothing: it is not resent."""
    return each(
        lambda p: Case(
            name=name,
            provider=p,
            faults=submit(p, fault),
            end="SubmissionUnknown",
            accepted=0,
            journal="intent",
            says=("may be billed", "Fetch Result", "set take to 2"),
            again=Again(end="SubmissionUnknown", posts=1, accepted=0, after=2000),
        )
    )


REFUSED = [
    *refused("400 that names the prompt", 400, "Rejected", "prompt is too long for this model", "prompt is too long"),
    *refused("402, no credit", 402, "NoCredit", "Insufficient credits. Please add more credits.", "Insufficient"),
    *refused("403", 403, "Forbidden", "this organisation may not submit", "may not submit"),
    *refused("404, model not there or not allowed", 404, "ModelUnavailable", "you do not have access", "access"),
    *refused("409", 409, "Rejected", "conflict with another request", "conflict"),
    *each(
        lambda p: Case(
            name="422 with a list of details",
            provider=p,
            faults=submit(
                p,
                {
                    "kind": "answer",
                    "status": 422,
                    "json": {"detail": [{"loc": ["body", "seed"], "msg": "too big"}, {"msg": "no such size"}]},
                },
            ),
            end="Rejected",
            accepted=0,
            journal="rejected",
            says=("too big", "no such size"),
        )
    ),
    Case(
        name="401, a wrong key",
        provider=GMI,
        keys={GMI: ["another"]},
        end="AuthError",
        accepted=0,
        journal=("rejected", "intent"),
        says=("GMI_API_KEY",),
    ),
    Case(
        name="401, a wrong key at the first upload",
        provider=WAVESPEED,
        keys={WAVESPEED: ["another"]},
        end="AuthError",
        posts=0,
        accepted=0,
        journal=("rejected", "intent", ""),
        says=("WAVESPEED_API_KEY",),
    ),
    *refused("401 on the submission alone", 401, "AuthError", "invalid key", "API_KEY"),
    Case(
        name="500 that wraps a rejection",
        provider=GMI,
        faults=submit(GMI, answer(GMI, 500, "Backend error (400). Please try again.")),
        end="Rejected",
        accepted=0,
        journal="rejected",
        never=("gmi.list",),
        again=Again(posts=2),
    ),
    *[
        Case(
            name=f"HTTP 200 around code {code}",
            provider=WAVESPEED,
            faults=submit(WAVESPEED, {**answer(WAVESPEED, code, "inside the envelope"), "status": 200}),
            end=end,
            accepted=0,
            journal="rejected",
            again=Again(posts=2),
        )
        for code, end in ((400, "Rejected"), (401, "AuthError"), (402, "NoCredit"))
    ],
]

LADDER = [
    Case(
        name="frames taken as a data URI alone",
        provider=GMI,
        settings={"gmi_image_forms": ["data"]},
        posts=2,
    ),
    Case(
        name="frames taken as an URL alone",
        provider=GMI,
        settings={"gmi_image_forms": ["url"]},
        posts=3,
        asked={"put": 2},
    ),
    Case(
        name="no form of the frames is taken",
        provider=GMI,
        settings={"gmi_image_forms": []},
        end="Rejected",
        posts=3,
        accepted=0,
        journal="rejected",
        says=("first_frame_image",),
    ),
    Case(
        name="413 to every form",
        provider=GMI,
        faults=submit(GMI, answer(GMI, 413, "request entity too large", times=0)),
        end="TooLarge",
        posts=(1, 4),
        accepted=0,
        journal="rejected",
    ),
    Case(
        name="413 to the frames in the body, not to their URLs",
        provider=GMI,
        settings={"gmi_image_forms": ["base64", "data", "url"]},
        faults=submit(GMI, answer(GMI, 413, "request entity too large")),
        posts=(2, 3),
    ),
    Case(
        name="413",
        provider=WAVESPEED,
        faults=submit(WAVESPEED, answer(WAVESPEED, 413, "request entity too large")),
        end="TooLarge",
        accepted=0,
        journal="rejected",
    ),
]

RATE = [
    *each(
        lambda p: Case(
            name="429 with Retry-After 3",
            provider=p,
            faults=submit(p, retry_after(p, 429, "3")),
            plan=[TERMINAL[p]],
            posts=2,
            slept=(3, 9),
        )
    ),
    *each(
        lambda p: Case(
            name="429 without Retry-After",
            provider=p,
            faults=submit(p, answer(p, 429, "slow down")),
            posts=2,
        )
    ),
    *each(
        lambda p: Case(
            name="429 again and again",
            provider=p,
            faults=submit(p, answer(p, 429, "rate limit exceeded", times=0)),
            end="RateLimited",
            posts=(10, 60),
            accepted=0,
            journal=("rejected",),
            wait_seconds=600,
            slept=(590, 640),
            says=("10 minutes", "nothing was made", "wait_minutes"),
            asked={f"{p}.list": (9, 60)},
        )
    ),
    *each(
        lambda p: Case(
            name="429 with Retry-After of a day",
            provider=p,
            faults=submit(p, retry_after(p, 429, "86400", times=0)),
            end="RateLimited",
            accepted=0,
            journal=("rejected",),
            slept=(0, 5),
            again=Again(end="RateLimited", posts=2, accepted=0),
        )
    ),
    Case(
        name="HTTP 200 around code 429",
        provider=WAVESPEED,
        faults=submit(WAVESPEED, {**answer(WAVESPEED, 429, "slow down"), "status": 200}),
        posts=2,
    ),
    *each(
        lambda p: Case(
            name="503 with Retry-After",
            provider=p,
            faults=submit(p, retry_after(p, 503, "2")),
            posts=2,
            slept=(2, 60),
        )
    ),
]

AMBIGUOUS = [
    *[
        case
        for status in (500, 502, 503, 504)
        for case in [
            *each(
                lambda p, status=status: Case(  # type: ignore[misc]
                    name=f"{status}, and the job was made",
                    provider=p,
                    faults=submit(p, answer(p, status, f"Backend error ({status})", accept=True)),
                    again=Again(posts=1),
                )
            ),
            *unknown(f"{status}, and no job was made", {"kind": "answer", "status": status, "text": "upstream"}),
        ]
    ],
    *adopted("reset after the body was sent, and the job was made", LOST),
    *unknown("reset after the body was sent, and no job was made", NOT_MADE),
    *unknown("reset half-way through the body", {"kind": "reset", "when": "half"}),
    *adopted("200 with a page of HTML", {"kind": "answer", "text": "<html>ok</html>", "accept": True}),
    *adopted("200 with an empty body", {"kind": "answer", "accept": True}),
    *adopted("200 with JSON cut short", {"kind": "answer", "text": TRUNCATED, "accept": True}),
    *adopted("200 with 60 MB of filler", {"kind": "answer", "fill": 60_000_000, "accept": True}),
    *each(lambda p: Case(name="answer without an id", provider=p, faults=submit(p, {"kind": "edit", "drop": [ID[p]]}))),
    *each(
        lambda p: Case(name="answer with id null", provider=p, faults=submit(p, {"kind": "edit", "put": {ID[p]: None}}))
    ),
    *each(
        lambda p: Case(
            name="answer with an empty id", provider=p, faults=submit(p, {"kind": "edit", "put": {ID[p]: ""}})
        )
    ),
    *each(
        lambda p: Case(
            name="answer with a number for an id",
            provider=p,
            plan=[TERMINAL[p]],
            plan_more={"id": "1234567"},
            faults=submit(p, {"kind": "edit", "put": {ID[p]: 1234567}}),
        )
    ),
    *each(
        lambda p: Case(
            name="answer with an id that climbs",
            provider=p,
            faults=submit(p, {"kind": "edit", "put": {ID[p]: "x/../../models"}}),
        )
    ),
    Case(
        name="HTTP 200 with data null, and the job was made",
        provider=WAVESPEED,
        faults=submit(
            WAVESPEED, {"kind": "answer", "json": {"code": 200, "message": "ok", "data": None}, "accept": True}
        ),
        again=Again(posts=1),
    ),
    Case(
        name="lost answer, the list comes as a bare list",
        provider=GMI,
        settings={"gmi_list_shape": "list"},
        faults=submit(GMI, LOST),
    ),
    Case(
        name="lost answer, the list stands under data",
        provider=GMI,
        settings={"gmi_list_shape": "data"},
        faults=submit(GMI, LOST),
    ),
    Case(
        name="lost answer, the list stands under items and echoes no inputs",
        provider=GMI,
        settings={"gmi_list_shape": "items", "gmi_echo": False},
        faults=submit(GMI, LOST),
    ),
    *each(
        lambda p: Case(
            name="lost answer, and the list fails too",
            provider=p,
            faults={
                **submit(p, LOST),
                f"{p}.list": [{"kind": "answer", "status": 500, "text": "down", "times": 0}],
            },
            end="SubmissionUnknown",
            journal="intent",
        )
    ),
]

AT_ONCE = [
    *each(
        lambda p: Case(
            name="answer is already the last one",
            provider=p,
            plan=[{"status": TERMINAL[p], "at_submit": True}, TERMINAL[p]],
            asked={"gmi.status": 0, "wavespeed.result": 0, "file": 1},
        )
    ),
]


@pytest.mark.parametrize("case", [*REFUSED, *LADDER, *RATE, *AMBIGUOUS, *AT_ONCE], ids=lambda case: case.id)
def test_submit(world, case):
    world.play("submit", case)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("provider", BOTH)
def test_a_redirected_submission_is_not_followed(world, provider, status):
    place = {"Location": f"{world.cloud.storage}/elsewhere/requests"}
    world.cloud.faults(f"{provider}.submit", {"kind": "answer", "status": status, "headers": place})
    outcome = world.run(world.request(provider))
    name = f"{provider}: {status} to another host"
    world.check("submit", name, outcome, end="UnexpectedRedirect", posts=1, accepted=0, journal="rejected")
    assert world.cloud.records("elsewhere") == []
    again = world.run(world.request(provider))
    assert (again.end, world.cloud.posts()) == ("result", 2)


@pytest.mark.parametrize("same", [True, False], ids=["same host", "another host"])
@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_may_mean_done_is_looked_up(world, status, same):
    place = (world.cloud.gmi + "/apikey/requests/x") if same else f"{world.cloud.storage}/elsewhere/requests"
    fault = {"kind": "answer", "status": status, "headers": {"Location": place}, "accept": True}
    world.cloud.faults("gmi.submit", fault)
    outcome = world.run(world.gmi())
    name = f"gmi: {status} to {'the same' if same else 'another'} host, and the job was made"
    world.check("submit", name, outcome, end="result", posts=1)
    assert world.cloud.records("elsewhere") == []


def test_retry_after_as_a_date_counts_from_the_clouds_own_clock(world):
    world.cloud.settings(offset=-3600)  # the cloud's clock is an hour behind ours
    date = formatdate(time.time() - 3600 + 6, usegmt=True)
    world.cloud.faults("gmi.submit", retry_after(GMI, 429, date))
    outcome = world.run(world.gmi(), plan=["success"])
    world.check("submit", "gmi: 429 with a date, clocks an hour apart", outcome, end="result", posts=2)
    assert 3 <= world.clock.elapsed <= 15


def test_backoff_has_jitter(world):
    waits = set()
    for turn in range(3):
        world.cloud.faults("gmi.submit", answer(GMI, 429, "slow down"))
        before = world.clock.elapsed
        assert world.run(world.gmi(prompt=f"turn {turn}"), plan=["success"]).end == "result"
        waits.add(world.clock.elapsed - before)
    assert len(waits) == 3


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "address", "end"),
    [
        ("connection refused", "http://127.0.0.1:{closed}", "Unreachable"),
        ("no such host", "https://no-such-host.invalid", "Unreachable"),
        ("TLS to a port that speaks none", "https://127.0.0.1:{api}", "InsecureConnection|Unreachable"),
    ],
)
@pytest.mark.parametrize("provider", BOTH)
def test_a_cloud_out_of_reach_costs_nothing(world, monkeypatch, provider, name, address, end):
    variable = {GMI: "GMI_BASE_URL", WAVESPEED: "WAVESPEED_BASE_URL"}[provider]
    monkeypatch.setenv(variable, address.format(closed=closed_port(), api=world.cloud.ports["api"]))
    outcome = world.run(world.request(provider))
    journal = ("", "rejected", "intent")
    world.check("submit", f"{provider}: {name}", outcome, end=end, posts=0, accepted=0, journal=journal, within=10)
    world.environ(monkeypatch)
    again = world.run(world.request(provider))
    assert (again.end, world.cloud.posts()) == ("result", 1)


def test_a_connection_that_never_comes_is_given_up(world, monkeypatch):
    monkeypatch.setattr("wan_remote.transport.api.CONNECT", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        monkeypatch.setenv("GMI_BASE_URL", f"http://127.0.0.1:{full.getsockname()[1]}")
        outcome = world.run(world.gmi())
        for one in waiting:
            one.close()
    world.check("submit", "gmi: connect timeout", outcome, end="Unreachable", posts=0, accepted=0, journal=None)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program to make a certificate with")
def test_a_certificate_nobody_trusts_is_refused_at_once(world, monkeypatch):
    monkeypatch.setenv("GMI_BASE_URL", f"https://127.0.0.1:{world.cloud.tls()}")
    outcome = world.run(world.gmi())
    name = "gmi: a certificate nobody trusts"
    world.check("submit", name, outcome, end="InsecureConnection", posts=0, accepted=0, journal=None)
    assert world.clock.elapsed < 1


@pytest.mark.parametrize("made", [True, False], ids=["the job was made", "no job was made"])
@pytest.mark.parametrize("provider", BOTH)
def test_no_answer_in_time_is_looked_up(world, monkeypatch, provider, made):
    world.shorten_reads(monkeypatch, 0.4)
    world.cloud.faults(f"{provider}.submit", {"kind": "hang", "seconds": 1.0, "accept": made})
    outcome = world.run(world.request(provider))
    name = f"{provider}: no answer to the submission in time, {'the' if made else 'no'} job was made"
    end = "result" if made else "SubmissionUnknown"
    journal = "fetched" if made else "intent"
    world.check("submit", name, outcome, end=end, posts=1, accepted=int(made), journal=journal)


def test_an_answer_that_drips_is_given_up_and_looked_up(world, monkeypatch):
    world.shorten_reads(monkeypatch, 0.5)
    world.cloud.faults("gmi.submit", {"kind": "drip", "step": 4, "seconds": 0.2})
    outcome = world.run(world.gmi())
    world.check("submit", "gmi: the answer comes a byte at a time", outcome, end="result", posts=1, within=5)


def twin(world, provider: str) -> None:
    """Somebody submits the very same thing in the same minute, from another machine."""
    record = world.cloud.records(f"{provider}.submit", full=True)[-1]
    names = ("authorization", "content-type")
    headers = {name: record["headers"][name] for name in names}
    address = f"{world.cloud.gmi}{record['path']}"
    assert requests.post(address, json=record["json"], headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize("provider", BOTH)
def test_two_jobs_that_could_be_ours_are_not_guessed_between(world, provider):
    fault = {"kind": "answer", "status": 500, "text": "down", "times": 0}
    world.cloud.faults(f"{provider}.submit", LOST)
    world.cloud.faults(f"{provider}.list", fault)
    first = world.run(world.request(provider))
    assert first.end == "SubmissionUnknown"
    world.cloud.faults(f"{provider}.list")
    twin(world, provider)
    outcome = world.run(world.request(provider))
    name = f"{provider}: lost answer, and two jobs in the list could be ours"
    world.check("submit", name, outcome, end="SubmissionUnknown", posts=2, accepted=2, journal="intent")
    for job in world.cloud.jobs():
        assert job["id"] in str(outcome.error)  # so that the person can fetch either


def test_a_job_of_another_entry_is_not_taken_for_ours(world):
    assert world.run(world.wavespeed(prompt="first")).end == "result"
    world.cloud.faults("wavespeed.submit", LOST)
    outcome = world.run(world.wavespeed(prompt="second"))
    name = "wavespeed: lost answer, and the list holds a job of another entry too"
    world.check("submit", name, outcome, end="result", posts=2, accepted=2)
    assert outcome.value.request_id == world.cloud.jobs()[-1]["id"]


@pytest.mark.parametrize("provider", BOTH)
def test_an_unknown_submission_is_not_resent_too_soon(world, provider):
    world.cloud.faults(f"{provider}.submit", NOT_MADE)
    assert world.run(world.request(provider)).end == "SubmissionUnknown"
    posts = world.cloud.posts()
    world.advance(20)
    before = world.clock.elapsed
    again = world.run(world.request(provider))
    waited = world.clock.elapsed - before
    # either it is refused for now, or it waits until the list can be trusted, and only then submits
    assert again.end == "SubmissionUnknown" or waited > 60, (again.text, waited)
    assert world.cloud.posts() <= posts + 1
    assert world.cloud.accepted() <= 1


@pytest.mark.parametrize("provider", BOTH)
def test_a_submission_lost_after_minutes_ends_in_a_typed_error(world, monkeypatch, provider):
    """Its own silence may outlast the time after which the list is trusted; it is not sent again in the same run."""
    real = Api.call

    def slow(api, call, **more):
        found = real(api, call, **more)
        if call.path in ("/apikey/requests", "/wavespeed-ai/wan-flf2v") and call.method == "POST":
            world.advance(130)
        return found

    monkeypatch.setattr(Api, "call", slow)
    world.cloud.faults(f"{provider}.submit", NOT_MADE)
    outcome = world.run(world.request(provider))
    name = f"{provider}: submission lost after two minutes of silence, and no job was made"
    world.check("submit", name, outcome, end="SubmissionUnknown", posts=1, accepted=0, journal="intent")


def test_a_job_far_down_the_list_is_found(world):
    """The list comes in pages; a job that was made and lost must not be bought again because others followed it."""
    world.cloud.faults("wavespeed.submit", LOST)
    world.cloud.faults("wavespeed.list", {"kind": "answer", "status": 500, "text": "down", "times": 0})
    assert world.run(world.wavespeed()).end == "SubmissionUnknown"
    world.cloud.faults("wavespeed.list")
    first = world.cloud.jobs()[0]["id"]
    world.advance(3600)
    world.cloud.control(flood={"wavespeed": 250})
    outcome = world.run(world.wavespeed())
    name = "wavespeed: lost answer, and 250 younger jobs stand before it in the list"
    world.check("submit", name, outcome, end="result", posts=1, accepted=251)
    assert outcome.value.request_id == first


def test_an_upload_that_the_cloud_has_lost_is_made_again(world):
    """Within a day an upload is taken to last; if the cloud can't reach it any more, the image is uploaded anew."""
    assert world.run(world.wavespeed()).end == "result"
    stored = len(world.cloud.records("put"))
    world.cloud.faults("wavespeed.submit", answer(WAVESPEED, 400, "first_image: the media URL cannot be reached"))
    outcome = world.run(world.wavespeed(prompt="another"))
    world.check("submit", "wavespeed: an upload of yesterday is gone", outcome, end="result", posts=3, accepted=2)
    assert len(world.cloud.records("put")) == 2 * stored


def test_a_image_the_cloud_does_not_want_is_not_uploaded_for_ever(world):
    fault = answer(WAVESPEED, 400, "first_image is no image we like", times=0)
    world.cloud.faults("wavespeed.submit", fault)
    outcome = world.run(world.wavespeed())
    name = "wavespeed: 400 that names a fresh image"
    world.check("submit", name, outcome, end="Rejected", posts=1, accepted=0, journal="rejected")


def test_a_refused_image_is_told_though_there_is_no_other_way_to_send_it(world):
    for route in ("gmi.upload", "gmi.upload_url", "gmi.upload-url", "gmi.ticket"):
        world.cloud.faults(route, answer(GMI, 404, "page not found", times=0))
    refused = answer(GMI, 400, "first_frame_image violates our content policy", times=0)
    world.cloud.faults("gmi.submit", refused)
    outcome = world.run(world.gmi())
    assert outcome.end == "Rejected"
    assert "content policy" in str(outcome.error)
