"""``make demo``: what is given on its command line arrives as it was written, and the files it speaks of are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo.__main__ as program
from demo import gif
from wan_local import video

ROOT = Path(__file__).parents[2]
PROMPT = """say "hi", it's `id` $HOME $(shell echo made) ${PATH} \\ # 100%
on two lines"""


@pytest.fixture
def given(tmp_path: Path):
    """What ``python -m demo`` is given by ``make demo``, with a python that tells its arguments."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (venv / "bin" / "python").chmod(0o755)
    (venv / "run").touch()

    def run(*arguments: str, **environment: str) -> list[str]:
        command = ["make", "--silent", "--no-print-directory", "demo", f"VENV={venv}", *arguments]
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | environment
        done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\0")[:-1]

    return run


def test_names_and_prompt_arrive_as_they_were_written(given) -> None:
    found = given("FIRST=my first.png", "LAST=it's $last.png", f"PROMPT={PROMPT}")
    assert found == ["-m", "demo", "--first=my first.png", "--last=it's $last.png", f"--prompt={PROMPT}"]


def test_a_prompt_of_the_shell_is_not_the_demos(given) -> None:
    assert given(PROMPT="%n@%m:%~$ ") == given() == ["-m", "demo", "--first=", "--last=", "--prompt="]


def test_own_images_give_a_clip_a_gif_and_a_sheet(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "last"):
        shutil.copy(ROOT / "demo" / f"real_{name}.png", tmp_path / f"my {name}.png")
    assert program.main(["--first=my first.png", "--last=my last.png", f"--prompt={PROMPT}", "--steps=1"]) == 0
    said = capsys.readouterr().out
    assert len(said.split("\n\n")[0].splitlines()) == 3
    for part in ("my first.png", "output/demo.mp4", "\nends: first ", "What to do next"):
        assert part in said
    assert {path.name for path in Path("output").iterdir()} == {"demo.mp4", "demo.gif", "demo.png"}
    frames, _ = video.read("output/demo.mp4")
    assert frames.shape == (program.LENGTH, program.SIDE, program.SIDE, 3)


def test_the_gif_shows_the_clip_between_its_images(tmp_path: Path) -> None:
    red, blue = (np.full((32, 48, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200)))
    for name, pixels in (("first", red), ("last", blue)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    share = np.linspace(0, 1, 5)[:, None, None, None]
    clip = ((1 - share) * red + share * blue) / 255  # [F, H, W, 3]
    video.write(video.torch.from_numpy(clip).float(), tmp_path / "clip.mp4", 10)
    gif.write(tmp_path / "clip.mp4", tmp_path / "first.png", tmp_path / "last.png", tmp_path / "clip.gif")
    with Image.open(tmp_path / "clip.gif") as found:
        assert found.n_frames == 5
        for index, page in enumerate(clip * 255):
            found.seek(index)
            shown, middle = np.asarray(found.convert("RGB"), float), found.height // 2
            places = [gif.GAP + each * (gif.TILE + gif.GAP) + gif.TILE // 2 for each in range(3)]
            for place, wanted in zip(places, (red[0, 0], page[0, 0], blue[0, 0]), strict=True):
                assert np.abs(shown[middle, place] - wanted).max() < 12


@pytest.mark.parametrize("alone", ["--first=a.png", "--last=b.png"])
def test_one_image_alone_is_wrong_use(alone: str, capsys) -> None:
    assert program.main([alone]) == 2
    assert "give both images, or neither" in capsys.readouterr().err


def test_an_image_that_is_not_there_is_told_first_and_in_the_words_of_make(tmp_path: Path, capsys) -> None:
    assert program.main([f"--first={program.FIRST}", f"--last={tmp_path / 'none.png'}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("make demo: LAST: ")
    assert "none.png is not there" in err
    assert len(err.splitlines()) == 1


def test_an_old_python_is_told_which_it_needs(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    command = ["make", "demo", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert "needs Python 3.10 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()
