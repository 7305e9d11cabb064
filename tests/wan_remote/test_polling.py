"""What can go wrong while a paid job runs. In every case: one submission, and the job stays collectable."""

from __future__ import annotations

import pytest

from tests.wan_remote.fault_case import (
    BOTH,
    DONE,
    DOWN,
    GMI,
    POLL,
    WAITING,
    WAVESPEED,
    Again,
    Case,
    answer,
    each,
    poll,
    retry_after,
)

EMPTY_LIST = {
    GMI: {"kind": "answer", "json": {"requests": []}, "times": 0},
    WAVESPEED: {"kind": "answer", "json": {"code": 200, "message": "success", "data": {"items": []}}, "times": 0},
}

LONG = "the worker ran out of patience " * 4000


def failed(provider: str, text: str, **more: object) -> dict[str, object]:
    """A record that ended badly, with its message where this cloud puts it."""
    return {"status": "failed", **({"error": text} if provider == WAVESPEED else {"outcome": {"error": text}}), **more}


def ends(name: str, steps: object, end: str, *says: str, journal: str = "failed", **more: object) -> list[Case]:
    """The job ends without a video: a typed error, and the same inputs are a new job afterwards."""
    return each(
        lambda p: Case(
            name=name,
            provider=p,
            plan=[WAITING[p], *steps(p)],  # type: ignore[operator]
            end=end,
            journal=journal,
            says=says,
            again=Again(posts=2, accepted=2),
            **more,  # type: ignore[arg-type]
        )
    )


OUTAGES = [
    *[
        case
        for status in (408, 425, 500, 502, 503, 504, 520, 524, 525, 529, 530)
        for case in each(
            lambda p, status=status: Case(  # type: ignore[misc]
                name=f"{status} between good polls",
                provider=p,
                faults=poll(p, {"kind": "pass"}, {"kind": "answer", "status": status, "text": "oops", "times": 3}),
            ),
            BOTH if status in (500, 503) else (GMI,),
        )
    ],
    *each(
        lambda p: Case(
            name="resets between good polls",
            provider=p,
            faults=poll(p, {"kind": "reset", "when": "before", "times": 2}, {"kind": "reset", "times": 2}),
        )
    ),
    *each(
        lambda p: Case(
            name="answers cut short and pages of HTML between good polls",
            provider=p,
            faults=poll(
                p,
                {"kind": "cut", "keep": 40},
                {"kind": "answer", "text": "<html>back soon</html>"},
                {"kind": "answer"},
            ),
        )
    ),
    *each(
        lambda p: Case(
            name="500 for ten minutes",
            provider=p,
            faults=poll(p, {"kind": "answer", "status": 500, "text": "down", "times": 40}),
            slept=(300, 1800),
        )
    ),
    *each(
        lambda p: Case(
            name="nothing but 500 until the wait limit",
            provider=p,
            faults=poll(p, {"kind": "answer", "status": 500, "text": "down", "times": 0}),
            end="StillRunning",
            journal="submitted",
            wait_seconds=1200,
            slept=(1000, 1500),
        )
    ),
    *each(
        lambda p: Case(
            name="429 with Retry-After",
            provider=p,
            faults=poll(p, retry_after(p, 429, "20"), retry_after(p, 429, "1000000")),
            slept=(140, 300),
        )
    ),
    *each(
        lambda p: Case(
            name="404 in the middle of a job, then found",
            provider=p,
            plan=[WAITING[p]] * 12 + [DONE[p]],
            faults=poll(
                p,
                {"kind": "pass"},
                answer(p, 404, "not found"),
                {"kind": "pass", "times": 8},
                answer(p, 404, "not found", times=2),
            )
            | {f"{p}.list": [DOWN]},  # two short gaps are no long one, which would be looked up
            slept=(60, 400),
        )
    ),
    *each(
        lambda p: Case(
            name="404 right after the submission, then found",
            provider=p,
            faults=poll(p, answer(p, 404, "not found", times=2)),
        )
    ),
]

REFUSALS = [
    *each(
        lambda p: Case(
            name="401, the key was revoked meanwhile",
            provider=p,
            faults=poll(p, {"kind": "pass"}, answer(p, 401, "invalid key")),
            end="AuthError",
            journal="submitted",
            says=("API_KEY",),
            again=Again(posts=1),
        )
    ),
    *each(
        lambda p: Case(
            name="404 for good, and its list lacks it too",
            provider=p,
            faults=poll(p, answer(p, 404, "not found", times=0)) | {f"{p}.list": [EMPTY_LIST[p]]},
            end="JobGone",
            journal="missing",
            slept=(25, 600),
            says=("kept", "set take to 2"),
            again=Again(posts=1),
        )
    ),
    *each(
        lambda p: Case(
            name="404 for good, and its list can't be had",
            provider=p,
            faults=poll(p, answer(p, 404, "not found", times=0)) | {f"{p}.list": [answer(p, 404, "none", times=0)]},
            end="JobGone",
            journal="missing",
            slept=(25, 600),
            says=("kept", "organisation"),
            again=Again(posts=1),
        )
    ),
    *each(
        lambda p: Case(
            name="404 for good, and its list shows it at work",
            provider=p,
            faults=poll(p, answer(p, 404, "not found", times=0)),
            end="JobGone",
            journal="missing",
            slept=(250, 900),
            again=Again(posts=1),
        )
    ),
    *each(
        lambda p: Case(
            name="404 for good, and its list shows it done",
            provider=p,
            plan=[DONE[p]],
            faults=poll(p, answer(p, 404, "not found", times=0)),
            slept=(25, 600),
        )
    ),
    *each(
        lambda p: Case(
            name="302 to another host",
            provider=p,
            faults=poll(p, {"kind": "answer", "status": 302, "headers": {"Location": "http://127.0.0.2:9/x"}}),
            end="UnexpectedRedirect",
            journal="submitted",
            again=Again(posts=1),
        )
    ),
    *each(
        lambda p: Case(
            name="record of another job",
            provider=p,
            plan=[WAITING[p], {"status": DONE[p], ("request_id" if p == GMI else "id"): "somebody-elses"}],
            end="BadResponse",
            journal="submitted",
            never=("file",),
        )
    ),
    Case(
        name="the right record under another model's label",
        provider=GMI,
        plan=["queued", {"status": "success", "model": "other-model-1"}],
    ),
]

STRANGE = [
    *each(
        lambda p: Case(
            name="fields of the wrong types",
            provider=p,
            plan=[
                {"status": 3, "outputs": "text", "outcome": [], "payload": "x" * 5_000_000, "created_at": {}},
                {"status": None, "outputs": None, "outcome": "text", "timings": [], "has_nsfw_contents": "no"},
                {"status": ["queued"], "error": 7, "queued_at": "soon", "urls": []},
                DONE[p],
            ],
        )
    ),
    *each(
        lambda p: Case(
            name="unknown status, then done",
            provider=p,
            plan=[WAITING[p], "warming_up", "warming_up", "warming_up", DONE[p]],
        )
    ),
    *each(
        lambda p: Case(
            name="an answer that never has an id",
            provider=p,
            faults=poll(
                p, {"kind": "answer", "json": {"code": 200, "status": 7, "data": {"status": "completed"}}, "times": 0}
            ),
            end="BadResponse",
            journal="submitted",
            says=("kept",),
            slept=(20, 200),
            again=Again(posts=1),
        )
    ),
    *[
        Case(name=f"status {word} with a video", provider=p, plan=[WAITING[p], {"status": DONE[p], "shown_as": word}])
        for p, word in ((GMI, "Success"), (GMI, None), (GMI, 7), (WAVESPEED, "SUCCEEDED"), (WAVESPEED, "finito"))
    ],
    *[
        Case(
            name=f"status {word}",
            provider=p,
            plan=[WAITING[p], word],
            end="JobCancelled",
            journal="cancelled",
            again=Again(posts=2, accepted=2),
        )
        for p, word in ((GMI, "canceled"), (WAVESPEED, "CANCELED"))
    ],
    *each(
        lambda p: Case(
            name="unknown status for ever",
            provider=p,
            plan=["warming_up"],
            end="StillRunning",
            journal="submitted",
            wait_seconds=600,
            slept=(500, 800),
        )
    ),
    *each(
        lambda p: Case(
            name="status that goes back",
            provider=p,
            plan=[WAITING[p], "processing", WAITING[p], "processing", DONE[p]],
        )
    ),
    Case(name="created and dispatched", provider=GMI, plan=["created", "dispatched", "processing", "success"]),
    *each(
        lambda p: Case(
            name="waiting beyond the limit",
            provider=p,
            plan=[WAITING[p]],
            end="StillRunning",
            journal="submitted",
            wait_seconds=600,
            slept=(550, 650),
            again=Again(end="StillRunning", posts=1),
        )
    ),
    Case(
        name="no echo of the payload, the URL in media_urls as an object",
        provider=GMI,
        settings={"gmi_echo": False, "gmi_url_form": "media_urls"},
    ),
    Case(name="the URL in media_urls as a string", provider=GMI, settings={"gmi_url_form": "media_strings"}),
]

ENDS = [
    *ends("failed with a message", lambda p: [failed(p, "worker crashed")], "JobFailed", "worker crashed"),
    *ends("failed without a message", lambda p: [{"status": "failed"}], "JobFailed"),
    *ends("failed with 100 kB of message", lambda p: [failed(p, LONG)], "JobFailed", "ran out of patience"),
    *ends(
        "failed with markup and line breaks",
        lambda p: [failed(p, "<b>bad</b>\r\n\x1b[31mred\x00")],
        "JobFailed",
        "bad",
    ),
    *ends("cancelled", lambda p: ["cancelled"], "JobCancelled", journal="cancelled"),
    *each(
        lambda p: Case(
            name="failed for content policy",
            provider=p,
            plan=[WAITING[p], failed(p, "blocked by content policy")],
            end="Moderated",
            journal="withheld",
            says=("pays for nothing", "to have and pay for another, change the seed"),
            again=Again(end="Moderated", posts=1),
        )
    ),
    Case(
        name="timeout",
        provider=WAVESPEED,
        plan=["created", "timeout"],
        end="JobFailed",
        journal="failed",
        says=("timeout",),
    ),
    Case(name="deleted", provider=WAVESPEED, plan=["created", "deleted"], end="JobGone", journal="missing"),
    Case(
        name="failed with the code of moderation",
        provider=WAVESPEED,
        plan=["created", {"status": "failed", "error": "code 1200: input rejected"}],
        end="Moderated",
        journal="withheld",
        says=("safety",),
    ),
    Case(
        name="completed, empty, flagged",
        provider=WAVESPEED,
        plan=["created", {"status": "completed", "outputs": [], "has_nsfw_contents": [True]}],
        end="Moderated",
        journal="withheld",
        says=("enable_safety_checker",),
        again=Again(end="Moderated", posts=1),
        never=("file",),
    ),
    *each(
        lambda p: Case(
            name="done without a URL, with one on reading again",
            provider=p,
            plan=[WAITING[p], {"status": DONE[p], "outcome": None, "outputs": []}, DONE[p]],
        )
    ),
    *each(
        lambda p: Case(
            name="done and never a URL",
            provider=p,
            plan=[WAITING[p], {"status": DONE[p], "outcome": None, "outputs": []}],
            end="EmptyResult",
            journal=("submitted", "done", "failed"),
            asked={POLL[p]: (4, 8)},
            never=("file",),
        )
    ),
    Case(
        name="done with a thumbnail alone",
        provider=GMI,
        plan=["queued", {"status": "success", "outcome": {"thumbnail_image_url": "https://example.com/t.jpg"}}],
        end="EmptyResult",
        journal=("submitted", "done", "failed"),
        never=("file", "thumbnail"),
    ),
    *each(
        lambda p: Case(
            name="done, then another end on reading again",
            provider=p,
            plan=[WAITING[p], DONE[p], failed(p, "changed its mind")],
        )
    ),
]


@pytest.mark.parametrize("case", [*OUTAGES, *REFUSALS, *STRANGE, *ENDS], ids=lambda case: case.id)
def test_poll(world, case):
    world.play("poll", case)


def test_a_long_message_is_trimmed_to_one_line(world):
    outcome = world.run(world.gmi(), plan=["queued", failed(GMI, LONG + "\n\x1b[31m<script>")])
    assert len(str(outcome.error)) < 1200
    assert str(outcome.error).isprintable()


def test_wavespeed_says_that_failed_jobs_are_refunded(world):
    outcome = world.run(world.wavespeed(), plan=["created", failed(WAVESPEED, "worker crashed")])
    assert "refund" in str(outcome.error)


def test_stuck_job_names_its_id_and_how_to_go_on(world):
    outcome = world.run(world.gmi(), plan=["queued"], wait_seconds=300)
    assert outcome.end == "StillRunning"
    assert world.cloud.jobs()[0]["id"] in str(outcome.error)
    assert "again" in str(outcome.error)


def test_wavespeed_is_not_polled_faster_than_it_asks(world):
    outcome = world.run(world.wavespeed(), plan=["created"] * 8 + ["completed"])
    assert outcome.end == "result"
    polls = len(world.cloud.records("wavespeed.result"))
    assert polls == 9
    assert world.clock.elapsed >= 5 * (polls - 1)


@pytest.mark.parametrize("jump", [86400, -86400], ids=["a day ahead", "a day back"])
def test_a_jump_of_the_system_clock_changes_nothing(world, jump):
    world.clock.at(60, lambda: world.clock.jump(jump))
    outcome = world.run(world.gmi(), plan=["queued"] * 20 + ["success"])
    name = f"gmi: the system clock jumps by {jump // 3600} hours"
    world.check("poll", name, outcome, end="result", posts=1)


def test_after_a_sleep_of_the_machine_one_more_poll_comes_before_the_limit(world):
    def sleeps() -> None:
        world.clock.pause(7200)
        world.cloud.control(finish="success")  # the job ended meanwhile

    world.clock.at(60, sleeps)
    outcome = world.run(world.gmi(), plan=["queued"], wait_seconds=1800)
    world.check("poll", "gmi: the machine sleeps for two hours", outcome, end="result", posts=1)


def test_a_slow_submission_is_no_reason_to_submit_twice(world):
    world.cloud.faults("gmi.submit", {"kind": "delay", "seconds": 1.0})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.posts()) == ("result", 1)


@pytest.mark.parametrize(
    "fault", [{"kind": "hang", "seconds": 20.0}, {"kind": "drip", "step": 300, "seconds": 20.0}], ids=["hangs", "drips"]
)
def test_a_poll_without_an_answer_in_time_is_asked_again(world, monkeypatch, fault):
    world.shorten_reads(monkeypatch, 0.3)
    world.cloud.faults("gmi.status", fault)
    outcome = world.run(world.gmi())
    world.check("poll", f"gmi: a poll {fault['kind']}s", outcome, end="result", posts=1, within=15)


def test_a_cloud_that_allows_no_pause_is_not_flooded(world):
    slow_down = answer(WAVESPEED, 429, "slow", headers={"Retry-After": "0"}, times=20)
    world.cloud.faults("wavespeed.result", slow_down)
    assert world.run(world.wavespeed()).end == "result"
    assert world.clock.elapsed > 20 * 5.0
