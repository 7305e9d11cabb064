"""What is left of a run of the command line that is ended, or whose words nobody reads any more."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from wan_local import video
from wan_local.cli import main, results

ROOT = Path(__file__).parents[2]
NANO, DEMO = ROOT / "weights" / "nano", ROOT / "demo"


def arguments(output: Path, *more: str) -> list[str]:
    return ["generate", "--model", str(NANO), "--first", str(DEMO / "nano_first.png"), "--last",
            str(DEMO / "nano_last.png"), "--prompt", "a disc", "--output", str(output), "--length", "5", "--steps", "1",
            "--width", "32", "--height", "32", "--device", "cpu", "--no-cache", *more]  # fmt: skip


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_the_video_is_written_keeps_the_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """As `docker stop`, and a terminal that is closed, end a program."""
    number = getattr(signal, name)
    encode = video._encode

    def killed(*given: object) -> int:
        os.kill(os.getpid(), number)
        return encode(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(video, "_encode", killed)
    before = signal.getsignal(number)
    assert main(arguments(tmp_path / "clip.mp4")) == 128 + number
    assert signal.getsignal(number) is before
    assert "latents kept in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.latents.safetensors"]


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup has it."""
    encode = video._encode

    def closed(*given: object) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return encode(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(video, "_encode", closed)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(arguments(tmp_path / "clip.mp4")) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


class Closed(io.StringIO):
    """Standard output whose reader has gone; once it leads nowhere, it takes everything."""

    lost = 1

    def write(self, text: str) -> int:
        if self.lost:
            raise BrokenPipeError(32, "Broken pipe")
        return len(text)

    def fileno(self) -> int:
        return 1


def test_what_can_not_be_printed_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", Closed())
    monkeypatch.setattr(Closed, "lost", 1)
    monkeypatch.setattr(results.os, "dup2", lambda *given: setattr(Closed, "lost", 0))
    assert main(arguments(tmp_path / "clip.mp4", "--seed", "7")) == 0
    said = capsys.readouterr().err
    assert "standard output can't be written (Broken pipe):" in said
    assert "seed 7" in said.splitlines()
    assert f"video {tmp_path / 'clip.mp4'}" in said  # said after it, when standard output is known to be gone


def test_clips_of_a_loop_alone_are_kept_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path / "clip.mp4", "--keep", str(tmp_path / "kept")))
    assert ended.value.code == 2
    assert "is for the clips of a --loop" in capsys.readouterr().err
