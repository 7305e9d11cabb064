"""``python -m benchmarks gpu`` at toy size on a CPU: every part runs, one that fails stops no other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import run
from benchmarks.gpu.lab import Lab

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]


def results(folder: Path) -> list[dict[str, object]]:
    (file,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


SLOW = "compiled"  # a compiler runs for ten seconds and more


@pytest.mark.parametrize("parts", [[name for name in run.PARTS if name != SLOW], [SLOW]], ids=["all", SLOW])
def test_every_part_runs_at_toy_size(parts: list[str], tmp_path: Path) -> None:
    if parts == [SLOW] and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    code = run.main(["--toy", "--out", str(tmp_path), "--only", ",".join(parts)])
    found = results(tmp_path)
    assert {result["part"] for result in found} == set(parts)
    wrong = [result for result in found if result["holds"] is False]
    assert not wrong
    assert code == 0
    assert not [result for result in found if result["name"] in ("failed", "ended early")]
    (page,) = tmp_path.glob("*.md")
    assert page.read_text().count(f"\n| {parts[0]} |") >= 1


def test_a_part_that_fails_is_told_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(lab: Lab) -> None:
        lab.tell("a figure", 1.0)
        raise RuntimeError("CUDA error: something\nwith lines")

    monkeypatch.setattr(run, "PARTS", {"first": broken, "second": lambda lab: lab.tell("another", 2.0)})
    assert run.main(["--toy", "--out", str(tmp_path)]) == 1
    assert [(each["part"], each["name"]) for each in results(tmp_path)] == [
        ("first", "a figure"), ("first", "failed"), ("second", "another")
    ]  # fmt: skip
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    run.main(["--toy", "--out", str(tmp_path), "--only", "second"])
    assert len(before) == 2
    assert {file: file.read_text() for file in before} == before, "another run has files of its own"
    assert sorted(file.suffix for file in tmp_path.glob("*_2.*")) == [".jsonl", ".md"]


def test_time_that_is_up_ends_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PARTS", {"only": lambda lab: lab.tell("a figure", 1.0)})
    monkeypatch.setattr(Lab, "need", lambda lab, seconds: (_ for _ in ()).throw(run.OutOfTime))
    assert run.main(["--toy", "--minutes", "0", "--out", str(tmp_path)]) == 0
    assert [each["name"] for each in results(tmp_path)] == ["ended early"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_that_is_said() -> None:
    command = [sys.executable, "-m", "benchmarks", "gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "sees no GPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_part_that_there_is_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--only", "nothing"])
    assert ended.value.code == 2
    assert "there is no such part" in capsys.readouterr().err
