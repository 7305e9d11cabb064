"""The scripts of docs/api.md run as they stand; the one for a running ComfyUI is tried in tests/comfyui."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wan_remote.stand_in.client import WAVESPEED, StandIn
from wan_local import images, video

ROOT = Path(__file__).parents[2]
FIRST, LAST = ROOT / "demo" / "nano_first.png", ROOT / "demo" / "nano_last.png"


def script(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "api" / name), *map(str, arguments)]
    surroundings = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")} | environment
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=300)


def test_the_library_makes_a_clip_with_exact_ends(tmp_path: Path) -> None:
    small = ["--width", 32, "--height", 32, "--length", 9, "--steps", 1]
    done = script("local_pipeline.py", ROOT / "weights" / "nano", FIRST, LAST, "a circle", tmp_path / "a.mp4", *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ends: first ")
    assert "decode 3 3" in done.stderr
    frames, _ = video.read(tmp_path / "a.mp4")
    assert frames.shape == (9, 32, 32, 3)
    wanted = images.fit_image(images.read(FIRST), 32, 32).permute(1, 2, 0)  # [H, W, 3]
    assert (frames[0] - wanted).square().mean() < 1e-3  # 30 dB: the image itself, as a codec keeps it
    wrong = script("local_pipeline.py", tmp_path / "none", FIRST, LAST, "a circle", tmp_path / "b.mp4")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1), wrong.stderr


@pytest.fixture
def cloud():
    with StandIn() as running:
        running.plan(WAVESPEED, {"status": "completed", "at_submit": True})  # else it is asked after five seconds
        yield running


def test_a_cloud_gives_a_clip_that_is_paid_for_once(cloud: StandIn, tmp_path: Path) -> None:
    first = script("cloud_clip.py", FIRST, LAST, "the sun sets", tmp_path / "clips", **cloud.environment)
    assert first.returncode == 0, first.stderr
    path, how = first.stdout.strip().rsplit(", ", 1)
    assert (Path(path).suffix, how) == (".mp4", "new")
    assert video.read(path)[0].ndim == 4
    again = script("cloud_clip.py", FIRST, LAST, "the sun sets", tmp_path / "clips", **cloud.environment)
    assert again.stdout.strip() == f"{path}, not paid for again"
    assert len(cloud.jobs()) == 1
    without = script(
        "cloud_clip.py",
        FIRST,
        LAST,
        "the sun sets",
        tmp_path / "clips",
        **cloud.environment | {"WAVESPEED_API_KEY": ""},
    )
    assert (without.returncode, len(without.stderr.splitlines())) == (1, 1), without.stderr


def test_a_cloud_is_told_of_an_image_that_is_not_there_in_one_line(tmp_path: Path) -> None:
    done = script("cloud_clip.py", tmp_path / "none.png", LAST, "the sun sets", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "none.png" in done.stderr
