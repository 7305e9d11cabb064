"""The command line: ways of offloading, the folder of kept prompts, and the plan that ``inspect`` prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import write_pipeline
from wan_local import video, weights
from wan_local.cli import main
from wan_local.cli.cache_folder import default_folder
from wan_local.encoders.cache import FOLDER

NANO = Path(__file__).parents[3] / "weights" / "nano"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    return path


def generate(image: Path, output: Path, *more: str) -> int:
    quick = ["--length", "5", "--steps", "2", "--seed", "7", "--device", "cpu"]
    return main(["generate", "--model", str(NANO), "--first", str(image), "--last", str(image),
                 "--prompt", "a red disc", "--output", str(output), *quick, *more])  # fmt: skip


def test_every_way_makes_the_same_video(image: Path, tmp_path: Path, home: Path) -> None:
    ways = {"none": ["--offload", "none"], "four": ["--offload", "4"], "auto": [], "all": ["--offload", "6"],
            "uncached": ["--no-cache"]}  # fmt: skip
    for name, more in ways.items():
        assert generate(image, tmp_path / f"{name}.mp4", *more) == 0
    films = {name: video.read(tmp_path / f"{name}.mp4")[0] for name in ways}
    assert all((film == films["none"]).all() for film in films.values())
    folder = default_folder()
    assert folder is not None
    assert folder.is_relative_to(home)
    assert len(list((folder / FOLDER).iterdir())) == 2  # the prompt and the negative one


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG_CACHE_HOME is a habit of Linux and BSD")
def test_the_users_own_cache_folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "wan_flf2v" / "prompts"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_folder() == home / ".cache" / "wan_flf2v" / "prompts"


def test_folder_of_kept_prompts(
    image: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(image, tmp_path / "a.mp4", "--no-cache", "--cache", str(tmp_path / "kept")) == 0
    assert not (tmp_path / "kept").exists()
    assert generate(image, tmp_path / "a.mp4", "--cache", str(tmp_path / "kept")) == 0
    assert len(list((tmp_path / "kept" / FOLDER).iterdir())) == 2
    assert list(home.iterdir()) == []
    monkeypatch.delattr(weights, "load_text_encoder")
    assert generate(image, tmp_path / "b.mp4", "--cache", str(tmp_path / "kept")) == 0
    assert (video.read(tmp_path / "a.mp4")[0] == video.read(tmp_path / "b.mp4")[0]).all()


@pytest.mark.parametrize("wrong", ["some", "-1", "2.5"])
def test_wrong_way_is_wrong_use(image: Path, tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        generate(image, tmp_path / "a.mp4", f"--offload={wrong}")
    assert caught.value.code == 2
    assert f"offload='{wrong}' can't be used; use auto, none or a number of blocks" in capsys.readouterr().err


def test_too_many_blocks_fail_before_anything_long(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(image, tmp_path / "a.mp4", "--offload", "7") == 1
    err = capsys.readouterr().err
    assert "offload=7 can't be used: the model has 6 blocks; use 0 to 6" in err
    assert "encode" not in err


def test_inspect_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pipeline(tmp_path / "model")
    assert main(["inspect", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "GB for 81 frames of 832x480" in text
    assert "GB for 81 frames of 1280x720" in text
    assert "GB for 161 frames of 832x480, networks" in text
    assert "GB for 161 frames of 832x480, at most 85 in a forward (--windows 81:28), networks" in text
    for way in ("none", "0", "1", "2"):
        assert text.count(f"\n  {way:<10}") == 4
    assert main(["inspect", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (first, second, long, windows) = told["plan"]
    assert (first["width"], first["height"], first["frames"]) == (832, 480, 81)
    assert [setting["offload"] for setting in second["settings"]] == ["none", 0, 1, 2]
    assert [stage["name"] for stage in second["settings"][0]["stages"]] == [
        "text encode", "image encode", "VAE encode", "sampling", "VAE decode",
    ]  # fmt: skip
    assert [each["frames"] for each in (long, windows)] == [161, 161]
    assert [each["forward"] for each in told["plan"]] == [None, None, None, 85]
    for whole, cut in zip(long["settings"], windows["settings"], strict=True):
        sizes = [{stage["name"]: stage["device"] for stage in each["stages"]} for each in (whole, cut)]
        assert {name for name in sizes[0] if sizes[0][name] != sizes[1][name]} == {"sampling"}
        assert sizes[1]["sampling"] < sizes[0]["sampling"]


def test_inspect_plans_nothing_for_what_makes_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pipeline(tmp_path / "model")
    assert main(["inspect", str(folder / "vae")]) == 0
    assert "GB for" not in capsys.readouterr().out
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"broken")
    assert main(["inspect", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["plan"] == []
