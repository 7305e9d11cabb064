"""What could make the same clip be paid for twice: lost answers, lists that prove nothing, wrong clocks, new keys."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
import threading
import time
from dataclasses import replace

import pytest
import requests

import wan_remote
from tests.wan_remote.fault_case import BOTH, DONE, GMI, POLL, WAVESPEED, answer
from tests.wan_remote.stand_in.client import GMI_KEY
from tests.wan_remote.world import TestWatch
from wan_remote import watch as watches
from wan_remote.files import probe_folder
from wan_remote.journal import Entry, Journal, locking
from wan_remote.journal.entry import VERSION, same_inputs
from wan_remote.secret import Secret
from wan_remote.states import State
from wan_remote.transport import api

LOST = {"kind": "reset", "when": "after", "accept": True}  # the job is made, its answer lost
NOT_MADE = {"kind": "reset", "when": "after"}
DOWN = {"kind": "answer", "status": 500, "text": "down", "times": 0}
VARIABLE = {GMI: "GMI_API_KEY", WAVESPEED: "WAVESPEED_API_KEY"}


def lose(world, provider: str) -> None:
    """A submission is taken, its answer lost, and the list is down."""
    world.cloud.faults(f"{provider}.submit", LOST)
    world.cloud.faults(f"{provider}.list", DOWN)
    assert world.run(world.request(provider)).end == "SubmissionUnknown"
    world.cloud.faults(f"{provider}.list")


def gmi_rows(world) -> list[dict]:
    found = requests.get(
        world.cloud.gmi + "/apikey/requests",
        params={"model_id": wan_remote.GMIRequest.model},
        headers={"authorization": f"Bearer {GMI_KEY}"},
        timeout=10,
    )
    return found.json()["requests"]


def show(world, provider: str, body: object) -> None:
    """From now on the list is this."""
    world.cloud.faults(f"{provider}.list", {"kind": "answer", "json": body, "times": 0})


# -- the cloud's clock -------------------------------------------------------------------------------------------------


def test_the_clouds_time_goes_on_with_ours():
    asked = api.Api("https://x.test", Secret("k" * 20, "a test"))
    assert asked.time is None
    then = time.monotonic() / 4.0
    asked._told = (1000.0, then)
    assert asked.time == pytest.approx(1000.0 + 3.0 * then, abs=5.0)


# -- lists that prove nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ISO", "milliseconds"])
def test_times_of_gmi_in_other_forms_are_read(world, form):
    lose(world, GMI)
    world.advance(300)
    rows = gmi_rows(world)
    for row in rows:
        moment = row["created_at"]
        iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        row["created_at"] = iso if form == "ISO" else int(moment * 1000)
    show(world, GMI, {"requests": rows})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.accepted()) == ("result", 1)


@pytest.mark.parametrize("shape", ["unknown name", "times in words", "no times", "rows of another kind"])
def test_a_list_of_gmi_that_is_not_understood_proves_nothing(world, shape):
    lose(world, GMI)
    world.advance(300)
    rows = gmi_rows(world)
    show(
        world,
        GMI,
        {
            "unknown name": {"results": rows},
            "times in words": {"requests": [{**row, "created_at": "soon"} for row in rows]},
            "no times": {"requests": [{k: v for k, v in row.items() if k != "created_at"} for row in rows]},
            "rows of another kind": {"requests": ["gmi-0001"]},
        }[shape],
    )
    outcome = world.run(world.gmi())
    world.check("submit", f"gmi: answer lost, then a list with {shape}", outcome, end="SubmissionUnknown", posts=1)


def test_a_list_of_gmi_that_may_be_cut_off_proves_nothing(world):
    lose(world, GMI)
    world.advance(300)
    world.cloud.control(flood={GMI: 25})
    rows, before = gmi_rows(world), world.cloud.accepted()
    show(world, GMI, {"requests": rows[:20], "next_page_token": "abc", "total": 26})
    outcome = world.run(world.gmi())
    assert outcome.end == "SubmissionUnknown"
    assert "set take to 2" in str(outcome.error)
    assert world.cloud.accepted() == before
    world.cloud.faults("gmi.list")  # and the whole of it does
    again = world.run(world.gmi(), plan=["success"])
    assert (again.end, again.value.resumed, world.cloud.accepted()) == ("result", False, before)


def test_a_list_of_gmi_that_is_not_in_order_proves_nothing(world):
    lose(world, GMI)
    world.advance(300)
    world.cloud.control(flood={GMI: 25})
    rows, before = gmi_rows(world), world.cloud.accepted()
    others = [{**row, "request_id": f"gm-other-{n}"} for n, row in enumerate(rows)]
    old = [{**row, "created_at": row["created_at"] - 9000 + n} for n, row in enumerate(others)]
    show(world, GMI, {"requests": old[:20]})  # oldest first, and cut off
    assert world.run(world.gmi()).end == "SubmissionUnknown"
    assert world.cloud.accepted() == before


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "data": None},
        {"error": "maintenance"},
        {"code": 200, "message": "success", "data": {"list": [], "total": 1}},
    ],
    ids=["no data", "no envelope", "another shape"],
)
def test_a_list_of_wavespeed_that_is_not_understood_proves_nothing(world, body):
    lose(world, WAVESPEED)
    world.advance(300)
    show(world, WAVESPEED, body)
    outcome = world.run(world.wavespeed())
    world.check("submit", "wavespeed: answer lost, then no list", outcome, end="SubmissionUnknown", posts=1)


def test_a_list_with_the_same_page_for_ever_ends(world):
    lose(world, WAVESPEED)
    world.advance(300)
    row = {"id": "wa-9", "model": wan_remote.WaveSpeedRequest.model, "status": "created"}
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(world.clock.time() + 3600))
    show(world, WAVESPEED, {"code": 200, "data": {"items": [{**row, "created_at": moment}]}})
    before = len(world.cloud.records("wavespeed.list"))
    assert world.run(world.wavespeed()).end == "SubmissionUnknown"
    assert len(world.cloud.records("wavespeed.list")) - before <= 6  # three looks


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


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1, 7])
@pytest.mark.parametrize("provider", BOTH)
def test_a_clock_that_was_corrected_buys_nothing(world, provider, hours):
    lose(world, provider)
    world.clock.jump(3600 * hours)
    world.advance(150)
    outcome = world.run(world.request(provider))
    world.check("control", f"{provider}: clock corrected by {hours} h", outcome, end="result", posts=1)


# -- keys, organisations, addresses -----------------------------------------------------------------------------------


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
    lose(world, GMI)
    world.cloud.control(keys={GMI: ["the-new-key-111111"]})
    monkeypatch.setenv("GMI_API_KEY", "the-new-key-111111")
    outcome = world.run(world.gmi())
    world.check("control", "gmi: the key was replaced after a lost answer", outcome, end="result", posts=1)


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


# -- answers that settle nothing --------------------------------------------------------------------------------------


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
    lose(world, GMI)
    [job] = world.cloud.jobs()
    assert world.fetch(GMI, job["id"]).end == "result"
    outcome = world.run(world.gmi())
    assert (outcome.end, outcome.value.request_id, world.cloud.accepted()) == ("result", job["id"], 1)


def test_a_list_that_lacks_a_later_job_of_ours_proves_nothing(world):
    assert world.run(world.gmi(prompt="before")).end == "result"
    before = gmi_rows(world)
    world.advance(2000)
    lose(world, GMI)
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


# -- the journal ------------------------------------------------------------------------------------------------------


def test_a_damaged_entry_whose_job_is_over_is_bought_again_only_as_another_take(world):
    world.run(world.wavespeed())
    [path] = world.entries()
    path.write_bytes(b"")
    world.advance(8 * 86400)
    for _ in range(2):
        assert world.run(world.wavespeed()).end == "SubmissionUnknown"
        world.advance(2000)
    outcome = world.run(world.wavespeed(take=2))
    world.check("control", "wavespeed: damaged entry, job is over, take 2", outcome, end="result", posts=2, accepted=2)


def test_an_entry_of_a_newer_version_is_left_alone(world):
    world.run(world.gmi())
    [path] = world.entries()
    text = json.dumps({**json.loads(path.read_text()), "v": VERSION + 1})
    path.write_text(text)
    outcome = world.run(world.gmi())
    world.check("control", "gmi: journal of a newer version", outcome, end="StorageError", posts=1, journal=None)
    assert "newer version" in str(outcome.error)
    assert path.read_text() == text


def test_a_clip_that_is_still_there_is_never_bought_again(world):
    first = world.run(world.gmi())
    world.advance(91 * 86400)
    [path] = world.entries()
    os.utime(path, (1.0, 1.0))
    again = world.run(world.gmi())
    assert (again.end, again.value.path, world.cloud.accepted()) == ("result", first.value.path, 1)
    first.value.path.unlink()
    world.run(world.gmi(seed=8))  # tidies up
    assert not path.exists()


@pytest.mark.parametrize("name", ["provider", "model", "parameters", "first", "last", "take"])
def test_the_same_inputs_are_the_same_in_all_of_them(name):
    one = Entry(
        fingerprint="a", provider=GMI, model="m", scope="a", parameters={"prompt": "p"}, first="f", last="l", seed=1
    )
    assert same_inputs(one, replace(one, fingerprint="b", scope="b", seed=2, state=State.DONE, id="x"))
    other = {"parameters": {"prompt": "q"}, "take": 2}.get(name, "other")
    assert not same_inputs(one, replace(one, **{name: other}))
    assert not same_inputs(replace(one, **{name: other}), one)


def test_a_claim_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "LONGEST_CLAIM", 0.2)
    book = Journal(folder=tmp_path)
    with book.claiming():
        began = time.monotonic()
        with pytest.raises(wan_remote.errors.StorageError, match="held by another program"), book.claiming():
            pass
        assert 0.2 <= time.monotonic() - began < 5.0
    with book.claiming():
        pass


def test_a_clip_that_is_kept_does_not_end_the_tidying(tmp_path):
    book = Journal(folder=tmp_path / "jobs")
    book.folder.mkdir()
    (tmp_path / "here.mp4").touch()
    for name, file in (("a", "here.mp4"), ("b", "gone.mp4"), ("c", "here.mp4"), ("d", "gone.mp4")):
        entry = Entry(
            fingerprint=name, provider=GMI, model="", scope="", parameters={}, first="a", last="b", seed=1,
            state=State.FETCHED, ended_at=1.0, file=file,
        )  # fmt: skip
        os.utime(book._path(book.write(entry).fingerprint), (1.0, 1.0))
    book.prune(tmp_path)
    assert sorted(entry.fingerprint for entry in book.entries()) == ["a", "c"]


def test_what_is_worked_on_is_not_tidied_away(tmp_path):
    book = Journal(folder=tmp_path)
    entry = Entry(
        fingerprint="n", provider=GMI, model="", scope="", parameters={}, first="a", last="b", seed=1,
        state=State.FAILED, ended_at=1.0,
    )  # fmt: skip
    os.utime(book._path(book.write(entry).fingerprint), (1.0, 1.0))

    async def main() -> None:
        async with book.alone("n", watches.Watch()):
            book.prune(tmp_path)
            assert book.read("n") == entry
        book.prune(tmp_path)
        assert book.read("n") is None

    asyncio.run(main())


def test_a_lock_that_was_taken_away_holds_nobody_off(tmp_path):
    """Two runs must not hold two files that had the same name."""
    book = Journal(folder=tmp_path)
    order: list[str] = []

    async def first() -> None:
        async with book.alone("n", watches.Watch()):
            await asyncio.sleep(0.1)
            (tmp_path / "n.lock").unlink()
            order.append("first")

    async def second() -> None:
        await asyncio.sleep(0.05)
        async with book.alone("n", watches.Watch()):
            assert (tmp_path / "n.lock").exists()
            order.append("second")

    async def both() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(both())
    assert order == ["first", "second"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_before_paying(world, monkeypatch, number):
    def no(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no)
    outcome = world.run(world.gmi())
    world.check(
        "before", f"gmi: no locks ({errno.errorcode[number]})", outcome, end="StorageError", posts=0, accepted=0
    )
    assert "local disk" in str(outcome.error)


def test_many_may_begin_at_once_in_one_folder(tmp_path):
    failures: list[BaseException] = []

    def probe() -> None:
        try:
            for _ in range(200):
                probe_folder(tmp_path)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not list(tmp_path.iterdir())


# -- replaced and expired ---------------------------------------------------------------------------------------------


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


# -- stop, threads, pauses --------------------------------------------------------------------------------------------


def test_a_submission_that_has_not_begun_is_not_sent_after_a_stop(world):
    gate = threading.Event()

    class Busy(TestWatch):
        def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
            super().stage(text, done, total)
            if text.startswith("submitting"):  # every worker hangs in somebody's poll when the stop comes
                for _ in range(2 * watches.FEW_THREADS):
                    watches._workers.submit(lambda: gate.wait(20))
                self.stopped.set()

    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(wan_remote.errors.Interrupted):
            await world.start(world.gmi(), Busy())
        return time.monotonic() - began

    took = asyncio.run(main())
    gate.set()
    time.sleep(0.3)
    assert world.cloud.posts() == 0
    assert took < 10


def test_a_slow_name_server_does_not_stand_in_the_way(world, monkeypatch):
    real, gaps = socket.getaddrinfo, []

    def slow(host, *given, **named):
        if str(host).endswith("example.net"):
            time.sleep(2.0)
            raise socket.gaierror(-2, "not known")
        return real(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    video = {"outcome": {"video_url": "https://cdn.example.net/a.mp4"}}
    world.cloud.faults("gmi.status", {"kind": "edit", "put": video, "times": 0})
    world.real_time(0.02)

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    async def main() -> None:
        beating = asyncio.ensure_future(beat())
        run = asyncio.ensure_future(world.start(world.gmi()))
        await asyncio.wait({run}, timeout=6)
        beating.cancel()
        run.cancel()
        await asyncio.gather(run, beating, return_exceptions=True)

    asyncio.run(main())
    assert world.cloud.records("gmi.status")
    assert max(gaps) < 1.5


def test_a_cloud_that_allows_no_pause_is_not_flooded(world):
    slow_down = answer(WAVESPEED, 429, "slow", headers={"Retry-After": "0"}, times=20)
    world.cloud.faults("wavespeed.result", slow_down)
    assert world.run(world.wavespeed()).end == "result"
    assert world.clock.elapsed > 20 * 5.0


def test_a_refused_image_is_told_though_there_is_no_other_way_to_send_it(world):
    for route in ("gmi.upload", "gmi.upload_url", "gmi.upload-url", "gmi.ticket"):
        world.cloud.faults(route, answer(GMI, 404, "page not found", times=0))
    refused = answer(GMI, 400, "first_frame_image violates our content policy", times=0)
    world.cloud.faults("gmi.submit", refused)
    outcome = world.run(world.gmi())
    assert outcome.end == "Rejected"
    assert "content policy" in str(outcome.error)


def test_five_and_five_point_nought_are_the_same_guidance(world):
    world.run(world.wavespeed(guidance_scale=5))
    world.run(world.wavespeed(guidance_scale=5.0))
    assert world.cloud.accepted() == 1
