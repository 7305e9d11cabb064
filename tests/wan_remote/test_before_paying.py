"""What has to be found out before anything is paid: keys, parameters, frames, folders, uploads."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.wan_remote.fault_case import GMI, WAVESPEED, Case, answer
from tests.wan_remote.stand_in.client import GMI_KEY
from tests.wan_remote.world import image

HTTP_KEYS = {"GMI": "GMI_API_KEY", "WAVESPEED": "WAVESPEED_API_KEY"}


@pytest.mark.parametrize(
    "value", [None, "", "   ", "\n"], ids=["no key", "empty key", "blank key", "newline for a key"]
)
@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_without_a_key_nothing_is_asked(world, monkeypatch, provider, value):
    variable = HTTP_KEYS[provider.upper()]
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    outcome = world.run(world.request(provider))
    world.check(
        "before", f"{provider}: key is {value!r}", outcome, end="KeyMissing", posts=0, accepted=0, says=(variable,)
    )
    assert world.cloud.records() == []


@pytest.mark.parametrize("value", [f"  {GMI_KEY}", f"{GMI_KEY}\n", f"\t{GMI_KEY} \r\n"], ids=repr)
def test_spaces_around_a_key_are_dropped(world, monkeypatch, value):
    monkeypatch.setenv("GMI_API_KEY", value)
    outcome = world.run(world.gmi())
    world.check("before", "gmi: spaces around the key", outcome, end="result", posts=1)


@pytest.mark.parametrize("inner", ["\n", "\r\n", "\x00", "\x7f", " ", "\u00e9"], ids=repr)
def test_a_key_with_a_bad_character_is_refused_without_showing_it(world, inner):
    halves = GMI_KEY[:12], GMI_KEY[12:]
    if inner == "\x00":
        world.save_key(GMI, inner.join(halves))
    else:
        world.monkeypatch.setenv("GMI_API_KEY", inner.join(halves))
    outcome = world.run(world.gmi())
    name = f"gmi: key with {inner!r} inside"
    world.check("before", name, outcome, end="KeyInvalid", posts=0, accepted=0)
    assert not any(half in outcome.text for half in halves)
    assert world.cloud.records() == []


@pytest.mark.parametrize(
    ("provider", "changes", "words"),
    [
        (GMI, {"prompt": ""}, ["prompt"]),
        (GMI, {"prompt": " \n"}, ["prompt"]),
        (GMI, {"video_length": 7}, ["video_length", "5", "10", "7"]),
        (GMI, {"video_length": 5.0}, ["video_length"]),
        (GMI, {"prompt_extend": "yes"}, ["prompt_extend"]),
        (GMI, {"seed": 2**31}, ["seed", "2147483647"]),
        (GMI, {"seed": -2}, ["seed", "-1"]),
        (GMI, {"seed": True}, ["seed"]),
        (GMI, {"fit": "squeeze"}, ["fit", "crop"]),
        (WAVESPEED, {"duration": 4}, ["duration", "5", "10"]),
        (WAVESPEED, {"duration": 11}, ["duration", "5", "10"]),
        (WAVESPEED, {"size": "1280x720"}, ["size", "1280*720", "832*480"]),
        (WAVESPEED, {"num_inference_steps": 0}, ["num_inference_steps", "1", "40"]),
        (WAVESPEED, {"num_inference_steps": 41}, ["num_inference_steps", "1", "40"]),
        (WAVESPEED, {"guidance_scale": 20.01}, ["guidance_scale", "20"]),
        (WAVESPEED, {"guidance_scale": -0.1}, ["guidance_scale", "0"]),
        (WAVESPEED, {"guidance_scale": float("nan")}, ["guidance_scale"]),
        (WAVESPEED, {"seed": 2**31}, ["seed", "2147483647"]),
        (WAVESPEED, {"enable_safety_checker": 1}, ["enable_safety_checker"]),
        (GMI, {"first": np.zeros((2, 8, 8, 3), np.uint8)}, ["first"]),
        (GMI, {"last": np.zeros((8, 8), np.uint8)}, ["last"]),
        (GMI, {"last": np.zeros((8, 8, 2), np.uint8)}, ["last"]),
        (GMI, {"first": np.full((8, 8, 3), np.nan, np.float32)}, ["first"]),
        (WAVESPEED, {"first": np.zeros((0, 8, 3), np.uint8)}, ["first"]),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict | str) else "",
)
def test_what_is_not_allowed_is_named_before_anything_is_asked(world, provider, changes, words):
    outcome = world.run_made(lambda: world.request(provider, **changes))
    shown = ", ".join(f"{name} = {value}" for name, value in changes.items() if not isinstance(value, np.ndarray))
    shown = shown or f"frame of shape {next(iter(changes.values())).shape}"
    name = f"{provider}: {shown!r}"
    world.check("before", name, outcome, end="InvalidRequest", posts=0, accepted=0, says=tuple(words))
    assert world.cloud.records() == []


def test_a_frame_too_big_for_the_budget_becomes_a_jpeg(world):
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    outcome = world.run(world.gmi(first=noise, last=noise[::-1].copy()))
    world.check("before", "gmi: frames too big for the budget", outcome, end="result", posts=1)
    [job] = world.cloud.jobs()
    assert [image["format"] for image in job["images"]] == ["JPEG", "JPEG"]
    assert sum(image["bytes"] for image in job["images"]) * 4 / 3 <= 6_000_000
    assert [image["size"] for image in job["images"]] == [[1280, 720]] * 2


def test_frames_too_big_in_any_form_are_refused(world, monkeypatch):
    world.shrink_budget(monkeypatch, 20_000)
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    outcome = world.run(world.gmi(first=noise, last=noise[::-1].copy()))
    world.check(
        "before", "gmi: frames too big in any form", outcome, end="InvalidRequest|TooLarge", posts=0, accepted=0
    )
    assert world.cloud.records() == []


def test_alpha_is_composited_and_frames_fitted(world):
    first = np.zeros((100, 300, 4), np.uint8)
    first[..., 0], first[..., 3] = 255, 128
    outcome = world.run(world.gmi(first=first))
    assert outcome.end == "result"
    [job] = world.cloud.jobs(full=True)
    image = Image.open(io.BytesIO(base64.b64decode(job["body"]["first_frame_image"])))
    assert (image.mode, image.size) == ("RGB", (1280, 720))
    assert 100 < image.getpixel((640, 360))[0] < 255


@pytest.mark.parametrize("which", ["output", "state"])
def test_a_folder_that_cannot_be_written_stops_everything_before_the_submission(world, which):
    blocked = world.tmp / "a file where a folder should be"
    blocked.write_text("x")
    outcome = world.run(world.gmi(), **{which: blocked / "deeper"})
    name = f"gmi: {which} folder cannot be written"
    world.check("before", name, outcome, end="StorageError", posts=0, accepted=0)
    assert world.cloud.accepted() == 0


def uploads(*script: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The same faults at both upload endpoints: which one a client uses is its own choice."""
    return {"wavespeed.ticket": list(script), "wavespeed.binary": list(script)}


UPLOADS = [
    Case(
        name="upload 500, 500, then good",
        provider=WAVESPEED,
        faults=uploads({"kind": "answer", "status": 500, "times": 2}),
    ),
    Case(name="upload reset, then good", provider=WAVESPEED, faults=uploads({"kind": "reset"})),
    Case(
        name="upload 429 with Retry-After, then good",
        provider=WAVESPEED,
        faults=uploads(answer(WAVESPEED, 429, "slow", headers={"Retry-After": "2"})),
    ),
    Case(name="signed PUT 403, then good", provider=WAVESPEED, faults={"put": [{"kind": "answer", "status": 403}]}),
    Case(name="the newer upload endpoint is not there", provider=WAVESPEED, settings={"wavespeed_tickets": False}),
    Case(
        name="upload 403",
        provider=WAVESPEED,
        faults=uploads(answer(WAVESPEED, 403, "uploads are not for you", times=0)),
        end="Forbidden|Rejected",
        posts=0,
        accepted=0,
        journal=("", "intent", "rejected"),
    ),
    *[
        Case(
            name=f"upload {what}",
            provider=WAVESPEED,
            faults=uploads({"kind": "edit", "times": 0, **edit}),
            end="BadResponse",
            posts=0,
            accepted=0,
            journal=("", "intent", "rejected"),
        )
        for what, edit in {
            "answers without download_url": {"drop": ["data.download_url"]},
            "gives a plain http URL": {"put": {"data.download_url": "http://example.com/a.png"}},
            "gives a file URL": {"put": {"data.download_url": "file:///etc/passwd"}},
            "gives a private host": {"put": {"data.download_url": "https://10.0.0.7/a.png"}},
            "gives a number": {"put": {"data.download_url": 7}},
        }.items()
    ],
]


@pytest.mark.parametrize("case", UPLOADS, ids=lambda case: case.id)
def test_upload(world, case):
    world.play("before", case)


def test_signed_upload_refused_for_good(world):
    world.cloud.faults("put", {"kind": "answer", "status": 403, "times": 0})
    world.cloud.faults("wavespeed.binary", {"kind": "answer", "status": 403, "times": 0})
    outcome = world.run(world.wavespeed())
    name = "wavespeed: signed PUT 403 to every ticket"
    world.check(
        "before",
        name,
        outcome,
        end="Rejected|BadResponse|Forbidden",
        posts=0,
        accepted=0,
        journal=("", "intent", "rejected"),
    )


def stored(world) -> int:
    """Images that arrived, by either endpoint."""
    return len([r for r in world.cloud.records() if r["route"] in ("wavespeed.binary", "put") and r["status"] == 200])


def test_the_same_image_is_uploaded_once_a_day(world):
    same = image(3)
    assert world.run(world.wavespeed(first=same, last=same)).end == "result"
    assert stored(world) == 1
    assert world.run(world.wavespeed(first=same, last=same, prompt="another")).end == "result"
    assert stored(world) == 1
    world.advance(25 * 3600)
    outcome = world.run(world.wavespeed(first=same, last=same, prompt="a third"))
    world.check(
        "before", "wavespeed: the same image again, and a day later", outcome, end="result", posts=3, accepted=3
    )
    assert stored(world) == 2
