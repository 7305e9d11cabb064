"""``chain`` and ``generate --loop``, as they are written."""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests import tiny
from wan_local import video
from wan_local.cli import main
from wan_local.cli.chain import name_of_model
from wan_local.errors import NumericError
from wan_local.generate import Pipeline
from wan_local.notices import listening


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for index, size in enumerate(((32, 48), (48, 32), (32, 32))):  # of any size
        pixels = torch.randint(0, 255, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{index}.png")
    return [str(tmp_path / f"{index}.png") for index in range(3)]


def options(model: Path, tmp_path: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--output", str(tmp_path / "clip.mp4"), "--length", "5", "--steps", "1",
            "--device", "cpu", "--no-cache", *more]  # fmt: skip


def test_images_become_one_video_and_the_clips_are_kept(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["chain", *images, *options(model, tmp_path, "--prompt", "a disc\n---\na square")]
    assert main(command) == 0
    streams = capsys.readouterr()
    assert "clip.mp4 (9 frames, 48x32" in streams.out
    assert streams.out.splitlines()[-1].startswith("join at frame 5: jump x")
    assert "1/2 sample" in streams.err
    assert "2/2 decode" in streams.err
    frames, _ = video.read(tmp_path / "clip.mp4")
    assert len(frames) == 9
    command[command.index("a disc\n---\na square")] = "a disc\n---\na circle"
    assert main(command) == 0
    again = capsys.readouterr()
    assert f"1 of 2 clips made before, in {tmp_path / 'clip.chain'}" in again.out
    assert "1/2 sample" not in again.err


def test_a_disk_that_fills_between_clips_costs_no_clip(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video comes out, what is not kept is said, and the same command makes that alone."""
    write, command = Path.write_bytes, ["chain", *images, *options(model, tmp_path, "--prompt", "a disc")]

    def full(path: Path, data: bytes) -> int:
        if any(path.parent.glob("[!.]*.latents.safetensors")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert main(command) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "could not be kept" in line]
    assert "clip 2 could not be kept (can't write " in told
    assert "No space left on device; name another place or free this one); the chain goes on" in told
    first, _ = video.read(tmp_path / "clip.mp4")
    assert main(command) == 0
    assert "1 of 2 clips made before" in capsys.readouterr().out
    assert torch.equal(video.read(tmp_path / "clip.mp4")[0], first)


def test_a_full_disk_is_told_before_anything_is_sampled(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 frames of 48x32 may take 3456 bytes."""
    monkeypatch.setattr("wan_local.output.shutil.disk_usage", lambda _: Namespace(free=3400))
    monkeypatch.setattr(Pipeline, "generate", lambda *given, **named: pytest.fail("a clip was sampled"))
    assert main(["chain", *images, *options(model, tmp_path, "--prompt", "a disc")]) == 1
    assert "are free; make room" in capsys.readouterr().err.splitlines()[-1]


def test_a_clip_that_fails_is_said_and_the_same_command_goes_on(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, command = Pipeline.generate, ["chain", *images, *options(model, tmp_path, "--prompt", "a\n---\nb")]

    def failing(pipeline: Pipeline, first: None, last: None, prompt: str, *rest: Any, **named: Any) -> Any:
        if prompt == "b":
            raise NumericError("step 1 gave NaN")
        return generate(pipeline, first, last, prompt, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "generate", failing)
        assert main(command) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].endswith("step 1 gave NaN")
    assert any("clip 2 of 2 was not made; the same chain goes on, with 1 clip kept" in line for line in told)
    assert not (tmp_path / "clip.mp4").exists()
    assert main(command) == 0
    assert "1 of 2 clips made before" in capsys.readouterr().out


def name(model: Path, **more: Any) -> str:
    other = dict.fromkeys(("model_low", "boundary", "vae", "text_encoder", "image_encoder", "tokenizer"))
    kinds = {"lora": [], "dtype": "auto", "unpack": False, "fp8_matmul": False}
    return name_of_model(Namespace(**{**other, **kinds, "model": str(model), **more}))


def test_an_expert_that_was_found_beside_the_other_names_the_clips_too(tmp_path: Path) -> None:
    high, low = tmp_path / "x_high_noise.safetensors", tmp_path / "x_low_noise.safetensors"
    told: list[str] = []
    high.write_bytes(b"high")
    with listening(told.append):
        names = [name(high)]
        for data in (b"low", b"another"):
            low.write_bytes(data)
            names.append(name(high))
        assert len(set(names)) == 3
        assert name(high, model_low=str(low), boundary=0.9) == names[-1]
        assert name(high, boundary=0.8) not in names
    assert told == [], "that it is taken was said when it was loaded"


@pytest.mark.parametrize(
    "changed",
    [{"lora": ["L:0.5"]}, {"lora": ["L:1", "L:1"]}, {"dtype": "bfloat16"}, {"unpack": True}, {"fp8_matmul": True},
     *({part: "one"} for part in ("vae", "text_encoder", "image_encoder", "tokenizer"))],
)  # fmt: skip
def test_what_decides_the_latents_names_the_clips(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("model", "L", "one"):
        Path(file).write_bytes(file.encode())
    before = name(Path("model"), lora=["L:1"])
    assert name(Path("model"), lora=["L:1"]) == before
    assert name(Path("model"), **{"lora": ["L:1"], **changed}) != before
    Path("L").write_bytes(b"trained on")
    assert name(Path("model"), lora=["L:1"]) != before


def test_a_loop_of_one_image_goes_on_and_back(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "latents"
    more = ["--first", images[0], "--loop", "--keep", str(keep), "--prompt", "a disc", "--seed", "1"]
    assert main(["generate", *options(model, tmp_path, *more)]) == 0
    out = capsys.readouterr().out
    assert "(8 frames" in out
    assert out.splitlines()[-1].startswith("join at frame 0: ")
    assert len(list(keep.iterdir())) == 2
    same = ["--first", images[0], "--last", images[0], "--loop", "--prompt", "a disc"]
    assert main(["generate", *options(model, tmp_path, *same)]) == 0
    assert "clip 1 of 2 begins and ends at the same image" in capsys.readouterr().err


def test_the_size_is_that_of_the_first_image_in_time_with_a_loop_and_without(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--last", images[0], "--keyframe", f"{images[1]}@0", "--prompt", "a disc"]
    for loop in ([], ["--loop"]):
        assert main(["generate", *options(model, tmp_path, *more, *loop)]) == 0
        assert " frames, 32x48, " in capsys.readouterr().out


def test_a_loop_goes_on_after_a_stop(
    model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a seed that was named."""
    generate, asked = Pipeline.generate, list[object]()
    command = ["generate", *options(model, tmp_path, "--first", images[0], "--loop", "--prompt", "a disc")]

    def stopped(*given: Any, **named: Any) -> Any:
        asked.append(given)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "generate", stopped)
        assert main(command) == 130
    assert "the same chain goes on, with 1 clip kept" in capsys.readouterr().err
    assert main(command) == 0
    assert "1 of 2 clips made before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("generate", "draws one and says which (default; of a --loop it is 0, so that"),
        ("chain", "draws one and says which; to go on after a stop, name that one (default: 0)"),
    ],
)
def test_the_help_says_which_seed_is_taken(command: str, default: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert default in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("count", "more", "status", "message"),
    [
        (1, [], 2, "1 image is given and a chain goes from image to image; give 2 or more"),
        (3, ["--prompt", "a\n---\nb\n---\nc"], 1, "3 prompts are given for 2 clips"),
        (3, ["--output", ""], 1, "does not end in .mp4"),
        (3, ["--keep", __file__], 1, f"can't write {__file__}"),
        (3, ["--output", "none/a.mp4", "--keep", "none/a.mp4"], 1, "a.mp4 can't both be there; name another place for"),
    ],
)
def test_what_is_no_chain_is_one_line(
    count: int, more: list[str], status: int, message: str, images: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["chain", *images[:count], *options(tmp_path, tmp_path, "--prompt", "a", *more)]
    if status == 2:
        with pytest.raises(SystemExit):
            main(command)
    else:
        assert main(command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize("command", [["chain"], ["chain", "--loop"], ["generate", "--loop"]])
def test_images_are_exact_where_that_is_asked_for(
    command: list[str], model: Path, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a loop on both sides of its beginning: its end goes over into the first image."""
    kind, *more = command
    given = images if kind == "chain" else ["--first", images[0], "--last", images[1]]
    assert main([kind, *given, *options(model, tmp_path, "--prompt", "a", "--repair", "exact", *more)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " -> " in line and "SSIM" in line]
    middle = ["frame 4", "frame 8"] if command == ["chain", "--loop"] else ["frame 4"]
    assert [line.split(":")[0] for line in lines] == ["first", *middle, "last"]
    assert all("(100% match by SSIM)" in line for line in lines)


def test_a_loop_is_written_alone(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(
            ["generate", *options(tmp_path, tmp_path, "--first", images[0], "--prompt", "a", "--loop", "--sheet", "s")]
        )
    assert "--loop writes the video alone" in capsys.readouterr().err
