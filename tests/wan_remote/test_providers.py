"""What a cloud says of a clip reaches the person: marks of unsafe content, times, thumbnail, odd numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED, retry_after
from wan_remote import Status
from wan_remote.collecting import told
from wan_remote.providers import PROVIDERS
from wan_remote.providers.gmi import GMI as GMICloud
from wan_remote.providers.wavespeed import WaveSpeed, WaveSpeedRequest
from wan_remote.redact import unsigned

MARKED = {"status": "completed", "has_nsfw_contents": [False, True], "timings": {"inference": 61234}}


def made(**more):
    return {"id": "a-1", "status": "completed", "outputs": ["https://cdn.example.com/a.mp4"], **more}


@pytest.mark.parametrize(
    ("marks", "flagged"),
    [
        ([True], True), ([False, True], True), ([None, True], True), (True, True), (["true"], True), ([1], True),
        ([False], False), (False, False), ([], None), (None, None), ([None], None), ("odd", None),
    ],
)  # fmt: skip
def test_a_clip_is_marked_if_any_of_its_outputs_is(marks, flagged):
    job = WaveSpeed().job(made(has_nsfw_contents=marks))
    assert (job.flagged, job.withheld, job.status) == (flagged, False, Status.SUCCEEDED)


def test_a_withheld_clip_is_marked_too():
    assert WaveSpeed().job(made(outputs=[], has_nsfw_contents=[True])).withheld
    refused = WaveSpeed().job(made(status="failed", outputs=[], error="code 1200: input rejected"))
    assert (refused.flagged, refused.withheld) == (True, True)


def test_the_marks_and_times_stand_in_result_status_and_journal(world):
    outcome = world.run(world.wavespeed(), plan=["created", MARKED])
    result = outcome.value
    assert (result.flagged, result.seconds) == (True, 61.234)
    assert "the cloud marks it as unsafe content" in told(result)
    assert any(line.startswith("made in 61.2 s, queued 2") for line in told(result))
    again = world.run(world.wavespeed()).value
    assert replace(again, resumed=False) == result
    status = json.loads(world.cli(WAVESPEED, "status", result.request_id).stdout)
    assert (status["flagged"], status["seconds"], status["has_thumbnail"]) == (True, 61.234, False)
    assert status["created"].endswith(" UTC")


def test_gmi_tells_when_and_shows_a_thumbnail_that_is_not_signed(world):
    still = {"thumbnail_image_url": "https://storage.example.com/bucket/t.jpg"}
    edit = {"kind": "edit", "times": 0, "put": {f"outcome.{name}": value for name, value in still.items()}}
    world.cloud.always(GMI, "success")
    world.cloud.faults("gmi.status", edit)
    result = world.run(world.gmi()).value
    assert result.thumbnail == "https://storage.example.com/bucket/t.jpg"
    assert result.flagged is None
    assert result.queued <= result.updated
    assert any(line.startswith("queued 2") and "last changed 2" in line for line in told(result))
    status = json.loads(world.cli(GMI, "status", result.request_id).stdout)
    assert "flagged" not in status
    assert (status["thumbnail"], status["has_thumbnail"]) == (result.thumbnail, True)
    assert status["queued"] <= status["updated"]


def test_a_signed_thumbnail_is_kept_nowhere(world):
    world.cloud.always(GMI, "success")
    outcome = world.run(world.gmi())  # the stand-in signs it
    assert outcome.value.thumbnail == ""
    status = world.cli(GMI, "status", outcome.value.request_id).stdout
    assert json.loads(status)["has_thumbnail"]
    world.assert_no_leak(outcome)
    world.assert_no_key(status)


@pytest.mark.parametrize(
    "address",
    ["https://a.example/t.jpg?X-Goog-Signature=1", "https://me:word@a.example/t.jpg", "http://a.example/t.jpg", "t.jpg",
     "https://a.example/" + "t" * 600, "https://a.example/t.jpg and more",
     "https://a.example/[t](x).jpg", ""],
)  # fmt: skip
def test_an_address_that_may_be_secret_is_not_shown(address):
    assert unsigned(address) == ""


HUGE = 10**400


@pytest.mark.parametrize(
    "changes",
    [
        {"timings": {"inference": HUGE}}, {"executionTime": HUGE}, {"created_at": HUGE}, {"queued_at": -HUGE},
        {"updated_at": "9" * 400}, {"timings": {"inference": float("inf")}}, {"created_at": float("nan")},
        {"has_nsfw_contents": [HUGE]},
    ],
)  # fmt: skip
def test_numbers_beyond_all_measure_are_no_numbers(changes):
    job = WaveSpeed().job(made(**changes))
    assert (job.seconds, job.created, job.queued, job.updated, job.flagged) == (None,) * 5
    assert job.status is Status.SUCCEEDED


def test_a_seed_and_an_id_of_four_hundred_digits():
    assert GMICloud().job({"request_id": "a-1", "payload": {"seed": HUGE}}).seed == HUGE
    with pytest.raises(Exception, match="usable request id"):
        GMICloud().job({"request_id": HUGE})


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("digits", [400, 5000])
def test_an_answer_with_such_a_number_is_an_error_of_ours_or_none(world, provider, digits):
    world.cloud.always(provider, "success" if provider == GMI else "completed")
    number = "1" + "0" * digits
    text = f'{{"code": {number}, "message": "", "request_id": {number}, "data": {{"id": {number}}}}}'
    for route in (f"{provider}.status", f"{provider}.list"):
        world.cloud.faults(route, {"kind": "answer", "text": text, "times": 2})
    outcome = world.run(world.request(provider))
    assert outcome.end in ("result", "BadResponse"), outcome.text
    assert "Traceback" not in str(outcome.error)
    assert number not in outcome.text


@pytest.mark.parametrize("price", [HUGE, "free", None, float("inf")])
def test_a_price_that_is_none_holds_up_nothing(world, price):
    world.cloud.always(WAVESPEED, "completed")
    world.cloud.faults("wavespeed.price", {"kind": "edit", "put": {"data.price": price, "data.discounted_price": None}})
    outcome = world.run(world.wavespeed())
    assert (outcome.end, outcome.value.price) == ("result", None)


def test_a_quote_is_what_is_left_of_it_after_a_discount(world):
    world.cloud.always(WAVESPEED, "completed")
    world.cloud.faults("wavespeed.price", {"kind": "edit", "put": {"data.price": 0.3, "data.discounted_price": 0.2}})
    assert world.run(world.wavespeed()).value.price == 0.2


@pytest.mark.parametrize(
    ("duration", "small", "large"), [(5, 0.30, 0.40), (10, 0.45, 0.60), (7, None, None)], ids=["5 s", "10 s", "7 s"]
)
def test_the_price_list_is_the_published_one(duration, small, large):
    found = {size: WaveSpeed.prices.of({"duration": duration, "size": size}) for size in WaveSpeedRequest.SIZES}
    assert found == {"832*480": small, "480*832": small, "1280*720": large, "720*1280": large}


@pytest.mark.parametrize(
    "value",
    ["9" * 400, "-5", "inf", "nan", "1e9", "soon", "Fri, 99 Foo 99999 99:99:99 GMT", "0x10", "5, 7", ""],
)
@pytest.mark.parametrize("route", ["submit", "status"])
def test_an_odd_retry_after_is_no_traceback(world, value, route):
    world.cloud.always(GMI, "success")
    world.cloud.faults(f"gmi.{route}", retry_after(GMI, 429, value))
    outcome = world.run(world.gmi(), wait_seconds=10000.0)
    assert outcome.end in ("result", "RateLimited"), outcome.text


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("gmi", {"request_id": "a", "status": "queued"}, ("queued", "", None)),
        ("gmi", {"request_id": "a", "status": "dispatched"}, ("queued", "", None)),
        ("gmi", {"request_id": "a", "status": "success", "outcome": {"video_url": "U"}}, ("succeeded", "U", None)),
        (
            "gmi",
            {"request_id": "a", "status": "success", "outcome": {"media_urls": [{"url": "V.jpg"}, {"url": "W.mp4?s"}]}},
            ("succeeded", "W.mp4?s", None),
        ),
        (
            "gmi",
            {"request_id": "a", "status": "success", "outcome": {"thumbnail_image_url": "T"}},
            ("succeeded", "", None),
        ),
        ("gmi", {"request_id": "a", "status": "new word"}, ("processing", "", None)),
        (
            "wavespeed",
            {"id": "a", "status": "created", "created_at": "2026-11-20T08:00:00.5Z"},
            ("queued", "", 1795161600.5),
        ),
        ("wavespeed", {"id": "a", "status": "completed", "outputs": ["U"]}, ("succeeded", "U", None)),
        ("wavespeed", {"id": "a", "status": "completed", "outputs": [{"url": "U"}]}, ("succeeded", "U", None)),
        ("wavespeed", {"id": "a", "status": "timeout"}, ("failed", "", None)),
        ("wavespeed", {"id": "a", "status": "cancelled"}, ("cancelled", "", None)),
        ("wavespeed", {"id": "a", "status": 3, "outputs": "x", "timings": []}, ("processing", "", None)),
    ],
)  # fmt: skip
def test_records_of_both_clouds_are_read(name, record, expected):
    job = PROVIDERS[name].job(record)
    assert (job.status.value, job.url, job.created) == expected
