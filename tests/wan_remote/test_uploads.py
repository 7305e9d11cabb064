"""Uploads beside each other: an image goes up once, nobody's loop stands still, and a refusal is told as one."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED, answer
from tests.wan_remote.world import TestWatch, image
from wan_remote import uploads
from wan_remote.errors import ModelUnavailable, NoUploads
from wan_remote.images import encode
from wan_remote.session import Folders, open_session
from wan_remote.uploads import upload

SLOW = {"kind": "delay", "seconds": 0.4, "times": 0}


def stored(world) -> int:
    """Images that arrived."""
    return len([record for record in world.cloud.records("put") if record["status"] == 200])


def session(world, provider, watch=None):
    folders = Folders(state=world.state, output=world.output)
    return open_session(provider, folders=folders, watch=watch, clock=world.clock, keys=world.keys)


@pytest.fixture
def frame(world):
    world.state.mkdir()
    return encode(image(3), 10**6, "first image")


# -- once -------------------------------------------------------------------------------------------------------------


def test_three_nodes_with_the_same_images_upload_each_once(world):
    world.cloud.faults("put", SLOW)
    outcomes = world.run_all([world.wavespeed(prompt=str(number)) for number in range(3)])
    assert [outcome.end for outcome in outcomes] == ["result"] * 3
    name = "wavespeed: three nodes with the same images at once"
    world.check("before", name, outcomes[0], end="result", posts=3, accepted=3)
    assert stored(world) == 2


def test_after_a_failed_job_the_images_are_uploaded_anew(world):
    """It may have failed since one of them is broken where it lies. Of two that failed only the first uploads."""
    two = [world.wavespeed(prompt=prompt) for prompt in ("a", "b")]
    for request in two:
        assert world.run(request, plan=["failed"]).end == "JobFailed"
    assert len(world.cloud.records("put")) == 2
    for request in two:
        assert world.run(request).end == "result"
        assert len(world.cloud.records("put")) == 4


def test_two_prompts_each_in_its_own_loop_share_an_upload(world, frame):
    world.cloud.faults("put", SLOW)
    addresses = []

    def prompt():
        addresses.append(asyncio.run(upload(session(world, WAVESPEED), frame, "first")))

    threads = [threading.Thread(target=prompt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(addresses) == 3
    assert len(set(addresses)) == 1
    assert stored(world) == 1


def test_who_waits_for_anothers_upload_can_be_stopped(world, frame):
    world.cloud.faults("put", {"kind": "hang", "seconds": 3.0})
    watch, took = TestWatch(), []

    async def main():
        first = asyncio.ensure_future(upload(session(world, WAVESPEED), frame, "first"))
        while not world.cloud.records("put"):
            await asyncio.sleep(0.02)
        second = asyncio.ensure_future(upload(session(world, WAVESPEED, watch), frame, "first"))
        await asyncio.sleep(0.3)
        start = time.monotonic()
        watch.stopped.set()
        await asyncio.wait({second})
        took.append(time.monotonic() - start)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return type(second.exception()).__name__

    assert asyncio.run(main()) == "Interrupted"
    assert took[0] < 2.0


@pytest.mark.parametrize("how", ["stopped", "cancelled", "refused"])
def test_an_upload_that_came_to_nothing_holds_nobody_up(world, frame, how):
    refusals = [answer(WAVESPEED, 401, "no")] if how == "refused" else []
    world.cloud.faults("wavespeed.ticket", *refusals)
    world.cloud.faults("put", {"kind": "hang", "seconds": 2.0}) if not refusals else None
    watch = TestWatch()

    async def main():
        first = asyncio.ensure_future(upload(session(world, WAVESPEED, watch), frame, "first"))
        while not world.cloud.records("put") and not first.done():
            await asyncio.sleep(0.02)
        watch.stopped.set() if how == "stopped" else None
        first.cancel() if how == "cancelled" else None
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled() or first.exception()
        start = time.monotonic()
        await upload(session(world, WAVESPEED), frame, "first")
        return time.monotonic() - start

    assert asyncio.run(main()) < 1.5


# -- a slow resolver ---------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_names(world, monkeypatch):
    """Uploads lie at a host whose name takes two seconds to look up, and then can't be."""
    real, asked = socket.getaddrinfo, threading.Event()

    def look_up(host, *more, **named):
        if host == "cdn.example.net":
            asked.set()
            time.sleep(2.0)
            raise socket.gaierror(-2, "not known")
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    world.cloud.settings(upload_host="https://cdn.example.net")
    return asked


def test_other_nodes_go_on_while_a_name_is_looked_up(world, frame, slow_names):
    gaps = [0.0]

    async def main():
        async def beat():
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.02)
                last, before = time.monotonic(), last
                gaps.append(last - before)

        beating = asyncio.ensure_future(beat())
        await upload(session(world, WAVESPEED), frame, "first")
        beating.cancel()

    asyncio.run(main())
    assert slow_names.is_set()
    assert max(gaps) < 1.5


def test_stop_counts_while_a_name_is_looked_up(world, slow_names):
    outcome = world.run(world.wavespeed(), stop_when=slow_names.is_set)
    name = "wavespeed: stopped while the name of a host is looked up"
    world.check("control", name, outcome, end="Interrupted", posts=0, accepted=0)
    assert outcome.after_stop < 1.0


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_cloud_without_uploads_is_not_told_as_a_missing_model(world, frame):
    world.cloud.faults("gmi.upload_url", answer(GMI, 404, "page not found", times=0))
    with pytest.raises(NoUploads, match=r"^GMI Cloud takes no uploads of images \(404\)") as told:
        asyncio.run(upload(session(world, GMI), frame, "first"))
    assert not isinstance(told.value, ModelUnavailable)
    assert "Wan-AI" not in str(told.value)
    assert told.value.__suppress_context__


UNUSABLE = {
    "400": answer(WAVESPEED, 400, "no such route", times=0),
    "403": answer(WAVESPEED, 403, "not for this key", times=0),
    "405": answer(WAVESPEED, 405, "method not allowed", times=0),
    "null": {"kind": "answer", "json": {"code": 200, "data": None}, "times": 0},
    "older shape": {"kind": "answer", "json": {"code": 200, "data": {"download_url": "https://a.b/c"}}, "times": 0},
}


@pytest.mark.parametrize("name", list(UNUSABLE))
def test_a_ticket_that_is_of_no_use_falls_back_to_the_plain_upload(world, frame, name):
    world.cloud.faults("wavespeed.ticket", UNUSABLE[name])
    assert asyncio.run(upload(session(world, WAVESPEED), frame, "first")).startswith("http")
    assert len(world.cloud.records("wavespeed.binary")) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_where_images_lie_is_for_the_user_alone(world, frame):
    asyncio.run(upload(session(world, WAVESPEED), frame, "first"))
    assert (world.state / "uploads.json").stat().st_mode & 0o777 == 0o600


def test_a_signed_place_that_takes_nothing(world, frame):
    world.cloud.faults("put", {"kind": "answer", "status": 403, "times": 0})
    with pytest.raises(NoUploads, match="GMI Cloud does not take an image where it says it should go"):
        asyncio.run(upload(session(world, GMI), frame, "first"))
    assert len(world.cloud.records("gmi.upload_url")) == 2


def test_nobody_waits_after_the_last_attempt(world, frame, monkeypatch):
    monkeypatch.setattr(uploads, "pause", lambda attempt: 10.0)
    world.cloud.faults("put", {"kind": "answer", "status": 503, "times": 0})
    with pytest.raises(NoUploads, match="does not take an image"):
        asyncio.run(upload(session(world, GMI), frame, "first"))
    assert len(world.cloud.records("put")) == 2 * 5  # five for each of two places
    assert world.clock.elapsed == pytest.approx(2 * 4 * 10.0)
