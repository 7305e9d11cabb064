"""Both providers' documents, word for word: what is sent, where, with which headers, and what is read back."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY
from tests.wan_remote.world import image

MODEL = "Wan-AI_Wan2.1-FLF2V-14B-720P"


def sent(world, route: str) -> dict[str, Any]:
    [record] = world.cloud.records(route, full=True)
    return record


def test_gmi_submission_word_for_word(world):
    request = world.gmi(prompt="A beautiful sunset, \u7eb8\u9e64", video_length=10, prompt_extend=True, seed=2147483647)
    assert world.run(request).end == "result"
    record = sent(world, "gmi.submit")
    assert (record["method"], record["raw_path"]) == ("POST", "/apikey/requests")
    assert record["headers"]["authorization"] == f"Bearer {GMI_KEY}"
    assert record["headers"]["content-type"] == "application/json"
    body = record["json"]
    first, last = body["payload"].pop("first_frame_image"), body["payload"].pop("last_frame_image")
    assert body == {
        "model": MODEL,
        "payload": {
            "prompt": "A beautiful sunset, \u7eb8\u9e64",
            "video_length": 10,
            "prompt_extend": True,
            "seed": 2147483647,
        },
    }
    assert base64.b64decode(first, validate=True).startswith(b"\x89PNG")
    assert first != last
    [job] = world.cloud.jobs()
    assert [image["size"] for image in job["images"]] == [[1280, 720], [1280, 720]]
    assert {image["mode"] for image in job["images"]} == {"RGB"}


def test_gmi_defaults(world):
    assert world.run(world.gmi(seed=0)).end == "result"
    payload = sent(world, "gmi.submit")["json"]["payload"]
    assert (payload["video_length"], payload["prompt_extend"], payload["seed"]) == (5, False, 0)


def test_gmi_status_is_read_where_the_document_says(world):
    outcome = world.run(world.gmi())
    paths = {record["raw_path"] for record in world.cloud.records("gmi.status")}
    assert paths == {f"/apikey/requests/{outcome.value.request_id}"}


def test_wavespeed_submission_word_for_word(world):
    request = world.wavespeed(
        prompt="glass flower blossom",
        negative_prompt="blurry",
        duration=10,
        size="720*1280",
        num_inference_steps=40,
        guidance_scale=7.5,
        seed=42,
        enable_safety_checker=False,
    )
    assert world.run(request).end == "result"
    record = sent(world, "wavespeed.submit")
    assert (record["method"], record["raw_path"]) == ("POST", "/api/v3/wavespeed-ai/wan-flf2v")
    assert record["headers"]["authorization"] == f"Bearer {WAVESPEED_KEY}"
    assert record["headers"]["content-type"] == "application/json"
    body = record["json"]
    first, last = body.pop("first_image"), body.pop("last_image")
    assert body == {
        "prompt": "glass flower blossom",
        "negative_prompt": "blurry",
        "duration": 10,
        "size": "720*1280",
        "num_inference_steps": 40,
        "guidance_scale": 7.5,
        "seed": 42,
        "enable_safety_checker": False,
    }
    assert first.startswith(world.cloud.storage + "/uploads/")
    assert first != last
    assert [image["size"] for image in world.cloud.jobs()[0]["images"]] == [[720, 1280], [720, 1280]]


def test_wavespeed_defaults(world):
    assert world.run(world.wavespeed(prompt="", seed=1)).end == "result"
    body = sent(world, "wavespeed.submit")["json"]
    told = {name: value for name, value in body.items() if name not in ("first_image", "last_image")}
    assert told.pop("prompt", "") == ""
    assert told == {
        "negative_prompt": "",
        "duration": 5,
        "size": "832*480",
        "num_inference_steps": 30,
        "guidance_scale": 5,
        "seed": 1,
        "enable_safety_checker": True,
    }


def test_wavespeed_result_is_read_where_the_document_says(world):
    outcome = world.run(world.wavespeed())
    paths = {record["raw_path"] for record in world.cloud.records("wavespeed.result")}
    assert paths == {f"/api/v3/predictions/{outcome.value.request_id}/result"}


@pytest.mark.parametrize("video_length", [5, 10])
@pytest.mark.parametrize("seed", [0, 2147483647])
def test_every_corner_of_gmi_is_taken(world, video_length, seed):
    assert world.run(world.gmi(video_length=video_length, seed=seed)).end == "result"


@pytest.mark.parametrize("size", ["832*480", "480*832", "1280*720", "720*1280"])
def test_every_size_of_wavespeed_is_taken_and_its_frames_fit(world, size):
    assert world.run(world.wavespeed(size=size)).end == "result"
    width, height = map(int, size.split("*"))
    assert [image["size"] for image in world.cloud.jobs()[0]["images"]] == [[width, height]] * 2


@pytest.mark.parametrize(
    "changes",
    [
        *[{"duration": seconds} for seconds in range(5, 11)],
        {"num_inference_steps": 1},
        {"guidance_scale": 0},
        {"guidance_scale": 20.0},
        {"seed": 2147483647},
    ],
    ids=str,
)
def test_every_edge_of_wavespeed_is_taken(world, changes):
    assert world.run(world.wavespeed(**changes)).end == "result"
    body = sent(world, "wavespeed.submit")["json"]
    assert {name: body[name] for name in changes} == changes


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_frames_are_fitted_as_told(world, fit):
    wide = image(4, height=40, width=200)
    assert world.run(world.gmi(first=wide, fit=fit)).end == "result"
    assert world.cloud.jobs()[0]["images"][0]["size"] == [1280, 720]


def test_result_tells_what_it_is(world):
    outcome = world.run(world.gmi(seed=5))
    [job] = world.cloud.jobs()
    result = outcome.value
    assert (result.provider, result.request_id, result.seed, result.resumed) == ("gmi", job["id"], 5, False)
    assert result.sha256 == job["sha256"]
    assert result.path.is_relative_to(world.output)
    assert result.path.stat().st_size == job["size"]
