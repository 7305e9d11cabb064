"""``python -m wan_local ends`` on a finished video, and ``generate --repair``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests import tiny
from tests.wan_local.ends import clips
from wan_local import ends, images, video
from wan_local.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drifted clip as a video, and its images."""
    folder = tmp_path_factory.mktemp("clip")
    (case,) = clips.drift(["zoom"])
    video.write(case.decoded, folder / "clip.mp4", 8)
    for name, image in (("first", case.first), ("last", case.last)):
        Image.fromarray(video.to_uint8(image.permute(1, 2, 0)).numpy()).save(folder / f"{name}.png")
    return folder


def given(folder: Path, *more: str) -> list[str]:
    return ["ends", str(folder / "clip.mp4"), "--first", str(folder / "first.png"), "--last",
            str(folder / "last.png"), "--device", "cpu", *more]  # fmt: skip


def test_a_report_says_how_exact_a_video_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given(folder)) == 0
    text = capsys.readouterr().out
    for word in ("first: ", "last: ", "dB", "match by SSIM", "jitter: ", "largest jump: x"):
        assert word in text
    assert main(given(folder, "--keyframe", f"{folder / 'first.png'}@7", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["frame"] for row in found["before"]["given"]] == [0, 7, 24]
    assert found["before"] == found["after"]


def test_a_repaired_video_starts_and_ends_at_the_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left is what the codec loses."""
    out = tmp_path / "new" / "better.mp4"
    assert main(given(folder, "--repair", "exact", "--output", str(out))) == 0
    assert " -> inf dB" in capsys.readouterr().out
    frames, fps = video.read(out)
    before, _ = video.read(folder / "clip.mp4")
    assert (len(frames), fps) == (25, 8)
    for at, name in ((0, "first"), (-1, "last")):
        image = images.read(folder / f"{name}.png")
        was, now = (ends.psnr(clip[at].permute(2, 0, 1), image) for clip in (before, frames))
        print(f"{name}: {was:.1f} -> {now:.1f} dB in the file")
        assert now > was + 8


WRONG = [
    (["--repair", "exact"], 2, "--repair exact makes a new video; name it with --output"),
    (["--output", "x.mp4"], 2, "--output without --repair would copy the video"),
    (["--remove-flash"], 2, "--remove-flash without --repair changes nothing; give --repair colour or exact"),
    (["--reach", "3"], 2, "--reach without --repair exact changes nothing; give that, or leave --reach out"),
    (["--repair", "colour", "--output", "x.mp4", "--reach", "8"], 2, "--reach without --repair exact"),
    (["--keyframe", "middle.png"], 2, "--keyframe middle.png has no frame; write IMAGE@FRAME"),
    (["--repair", "exact", "--output", "x.txt"], 1, "does not end in .mp4"),
    (["--keyframe", "FIRST@25"], 1, "is outside a video of 25 frames; use 0 to 24, or -1 for the last"),
    (["--keyframe", "FIRST@24"], 1, "is a second image for frame 24"),
    (["--keyframe", "none.png@3"], 1, "none.png"),
    (["--repair", "exact", "--output", "NEW", "--reach", "0"], 1, "reach=0 can't be used"),
]


@pytest.mark.parametrize(("more", "status", "message"), WRONG)
def test_what_can_not_be_is_one_line(
    folder: Path, tmp_path: Path, more: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [text.replace("FIRST", str(folder / "first.png")).replace("NEW", str(tmp_path / "x.mp4")) for text in more]
    if status == 2:
        with pytest.raises(SystemExit) as error:
            main(given(folder, *more))
        assert error.value.code == 2
    else:
        assert main(given(folder, *more)) == 1
    streams = capsys.readouterr()
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_repair_needs_an_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["ends", str(folder / "clip.mp4"), "--repair", "exact", "--output", "x.mp4"])
    assert error.value.code == 2
    assert "--repair exact needs an image; give the first, the last or a keyframe, or leave" in capsys.readouterr().err


def test_an_image_of_less_than_full_strength_is_only_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the run that made the clip, whose words of it these are."""
    middle = f"{folder / 'first.png'}@12"
    more = ["--repair", "exact", "--output", str(tmp_path / "x.mp4"), "--keyframe"]
    for strength, repaired in ((":0.5", False), (":1", True)):
        assert main(given(folder, *more, middle + strength)) == 0
        (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("frame 12:")]
        assert ("inf dB" in line) is repaired
    with pytest.raises(SystemExit) as error:
        main(["ends", str(folder / "clip.mp4"), *more, f"{middle}:0.5"])
    assert error.value.code == 2
    assert "--repair exact needs an image of full strength" in capsys.readouterr().err


def generating(model: Path, folder: Path, output: Path, *more: str) -> list[str]:
    return ["generate", "--model", str(model), "--first", str(folder / "first.png"), "--last",
            str(folder / "last.png"), "--prompt", "a disc", "--output", str(output), "--length", "9", "--steps", "1",
            "--width", "48", "--height", "32", "--device", "cpu", "--no-cache", *more]  # fmt: skip


def test_generate_repairs_what_it_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.write_pipeline(tmp_path / "model")
    frames = tmp_path / "frames"
    assert main(generating(model, folder, tmp_path / "clip.mp4", "--repair", "exact", "--frames", str(frames))) == 0
    assert " -> inf dB" in capsys.readouterr().out
    for name, index in (("first", 0), ("last", 8)):
        wanted = images.fit_image(images.read(folder / f"{name}.png"), 48, 32)
        made = images.read(frames / f"frame_{index:05d}.png")
        assert torch.equal(video.to_uint8(made), video.to_uint8(wanted))
    assert len(video.read(tmp_path / "clip.mp4")[0]) == 9


@pytest.mark.parametrize(("strength", "repaired"), [("", ["first", "frame 4", "last"]), (":0.5", ["first", "last"])])
def test_what_goes_on_after_a_failed_repair_repairs_too(
    folder: Path, tmp_path: Path, strength: str, repaired: list[str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Two commands, pasted one after the other; an image of less than full strength is left as it was made."""
    model, clip = tiny.write_pipeline(tmp_path / "model"), tmp_path / "a clip.mp4"
    middle = f"{folder / 'first.png'}@3{strength}"  # moved to frame 4
    with monkeypatch.context() as broken:
        broken.setattr(ends, "repair_to", lambda *given, **how: (_ for _ in ()).throw(MemoryError("made up")))
        more = ["--repair", "exact", "--keyframe", middle, "--tiling", "128", "--fit", "pad"]
        assert main(generating(model, folder, clip, *more)) == 1
    decode, repair = capsys.readouterr().err.strip().splitlines()[-3:-1]
    assert decode.endswith(" --tiling 128")
    for line in (decode, repair):
        assert main(shlex.split(line.partition(": python -m wan_local ")[2])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if " -> inf dB" in line] == repaired
    assert len(video.read(clip)[0]) == 9
