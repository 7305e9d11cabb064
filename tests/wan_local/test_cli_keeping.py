"""What a run keeps whose video can't be written, and the words that go on from it."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from wan_local import kept
from wan_local.cli import keeping, main
from wan_local.keyframes import Keyframe

PLAIN = {"device": "auto", "vae": None, "vae_dtype": "auto", "tiling": "auto", "repair": None, "fit": "crop",
         "model": "weights", "fps": 16.0, "first": None, "last": None, "keyframe": []}  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "decode"),
    [
        ({}, "--model weights --output {output} --fps 16.0"),
        ({"vae": "a vae.pth"}, "--model 'a vae.pth' --output {output} --fps 16.0"),
        ({"vae_dtype": "bfloat16"}, "--model weights --output {output} --fps 16.0 --vae-dtype bfloat16"),
        ({"device": "cpu", "tiling": "128"}, "--model weights --output {output} --fps 16.0 --device cpu --tiling 128"),
    ],
)
def test_what_decides_the_frames_is_named_again(
    chosen: dict[str, str], decode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = told(tmp_path, capsys, **chosen)
    latents, output = tmp_path / "clip.latents.safetensors", tmp_path / "clip.mp4"
    words = decode.format(output=output)
    assert line == f"latents kept in {latents}; to go on: python -m wan_local decode {latents} {words}"
    assert torch.equal(kept.read(latents), torch.ones(1, 16, 1, 2, 2))


@pytest.mark.parametrize(("fit", "more"), [("crop", []), ("pad", ["--fit", "pad"])])
def test_the_repair_fits_its_images_as_the_run_did(
    fit: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image of less than full strength is only measured: a repair does not know it."""
    lines = told(tmp_path, capsys, repair="exact", fit=fit, first="a.png", keyframe=["b@2.png@4", "c.png@8:0.5"])
    command = shlex.split(lines[1].partition("then, for the repair: python -m wan_local ")[2])
    output = str(tmp_path / "clip.mp4")
    expected = ["ends", output, "--first", "a.png", "--keyframe", "b@2.png@4", "--repair", "exact", "--output", output]
    assert command == [*expected, *more]


def told(folder: Path, capsys: pytest.CaptureFixture[str], **chosen: object) -> list[str]:
    """The lines of a run of such options that failed behind sampling."""
    args = Namespace(**{**PLAIN, "output": str(folder / "clip.mp4"), **chosen})
    given = {0: ("--first", 1.0), 4: ("--keyframe b@2.png@4", 1.0), 8: ("--keyframe c.png@8:0.5", 0.5)}
    image = torch.zeros(1, 3, 16, 16)
    keyframes = {at: Keyframe(images=image, frame=at, name=name, strength=much) for at, (name, much) in given.items()}
    settings = SimpleNamespace(seed=7)
    sampled = SimpleNamespace(latents=torch.ones(1, 16, 1, 2, 2), settings=settings, approximated="exact")
    keeping.keep(sampled, args, keyframes)
    return capsys.readouterr().err.splitlines()


def test_frames_want_more_room_than_their_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 frames of 32x48: 2 KB of video, 23 KB of frames."""
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 48)).save(image)
    monkeypatch.setattr("wan_local.output.shutil.disk_usage", lambda _: SimpleNamespace(free=20_000))
    command = ["generate", "--model", str(tmp_path / "none"), "--first", str(image), "--prompt", "a", "--length", "5"]
    command += ["--output", str(tmp_path / "clip.mp4")]
    assert main(command) == 1
    assert "none is not there" in capsys.readouterr().err, "the video alone has room"
    assert main([*command, "--frames", str(tmp_path / "frames")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "frame may need" in line
    assert "are free; make room" in line
