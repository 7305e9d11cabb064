"""``--keyframe``, and a clip without a first or a last image, as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests import tiny
from wan_local.cli import keyframe_option, main
from wan_local.generate import Pipeline
from wan_local.images import read
from wan_local.keyframes import Keyframe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for index, name in enumerate(("a", "b", "c@2")):
        pixels = torch.randint(0, 255, (32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{name}.png")
        paths[name] = str(tmp_path / f"{name}.png")
    return paths


def arguments(model: Path, tmp_path: Path, *more: str) -> list[str]:
    quick = ["--length", "9", "--steps", "1", "--seed", "7", "--device", "cpu", "--no-cache"]
    return ["generate", "--model", str(model), "--prompt", "a disc", "--output", str(tmp_path / "clip.mp4"),
            *quick, *more]  # fmt: skip


def test_the_options_are_the_library_s_keyframes(
    model: Path, images: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sampled = []
    real = Pipeline.generate

    def generate(*given: object, **more: object) -> object:
        sampled.append(real(*given, **more))
        return sampled[-1]

    monkeypatch.setattr(Pipeline, "generate", generate)
    sheet = str(tmp_path / "sheet.png")
    more = ["--last", images["b"], "--keyframe", images["c@2"] + "@3:0.5", "--sheet", sheet]
    assert main(arguments(model, tmp_path, *more)) == 0
    monkeypatch.undo()
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert re.fullmatch(r"ends: frame 4 .+ dB, .+; last .+ dB, .+; jitter .+", lines[-1])
    assert f"--keyframe {images['c@2']}@3:0.5 at frame 3 is moved to frame 4" in streams.err
    keyframes = [Keyframe(images=read(images["c@2"])[None], frame=4, strength=0.5)]
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    expected = pipeline.generate(None, images["b"], "a disc", sampled[0].settings, keyframes=keyframes)
    assert torch.equal(sampled[0].latents, expected.latents)


@pytest.mark.parametrize(
    ("written", "keyframe"),
    [
        ("a.png@40", ("a.png", 40, None, None)),
        ("a.png@-1:0.5", ("a.png", -1, "0.5", None)),
        ("c@2.png@0:0.8,0.2", ("c@2.png", 0, "0.8", "0.2")),
        ("C:\\a.png@8:1", ("C:\\a.png", 8, "1", None)),
    ],
)
def test_what_a_person_writes(written: str, keyframe: tuple[object, ...]) -> None:
    found = keyframe_option.WRITTEN.match(written)
    assert found is not None
    path, frame, *strengths = found.group("path", "frame", "strength", "low")
    assert (path, int(frame), *strengths) == keyframe


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ([], 2, "no image is given; give --first, --last or --keyframe"),
        (["--keyframe", "a"], 2, "--keyframe a has no frame; write IMAGE@FRAME[:STRENGTH], such as middle.png@40"),
        (["--keyframe", "no.png@4"], 1, "no.png is not there"),
        (["--keyframe", "a@4:strong"], 1, "@4:strong has strength 'strong'; give a number from 0 to 1"),
        (["--keyframe", "a@4:2"], 1, "has strength=2.0; give a number from 0 to 1"),
        (["--keyframe", "a@12"], 1, "@12 is at frame 12, outside a clip of 9 frames; use 0 to 8, or -9 to -1"),
        (["--last", "a", "--keyframe", "b@8"], 1, "two images stand at frame 8: --last and --keyframe"),
        (["--keyframe", "a@3", "--keyframe", "b@4"], 1, "(asked for: 3 and 4)"),
        (["--keyframe", "a@4:0.9", "--repair", "exact"], 1, "--repair exact needs an image of full strength; give the"),
        (["--keyframe", "a@0:0.9", "--repair", "colour", "--loop"], 1, "a keyframe of strength 1, or leave the repair"),
    ],
)
def test_what_can_not_be_is_one_line_before_anything_is_loaded(
    more: list[str], status: int, message: str, images: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    named = [images.get(text, text) for text in more]
    named = [text.replace("a@", images["a"] + "@").replace("b@", images["b"] + "@") for text in named]
    if status == 2:
        with pytest.raises(SystemExit) as caught:
            main(arguments(tmp_path, tmp_path, *more))
        assert caught.value.code == 2
    else:
        assert main(arguments(tmp_path, tmp_path, *named)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
