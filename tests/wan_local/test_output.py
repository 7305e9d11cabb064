"""A file that is written is whole or not there: the old one stays until the new one is complete."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.wan_local.video_clip import clip
from wan_local import contact_sheet, kept, video
from wan_local.encoders.cache import TextCache
from wan_local.errors import NumericError, OutputError
from wan_local.output import check_apart, replacing

ROOT = Path(__file__).parents[2]


def leftovers(folder: Path) -> list[str]:
    return sorted(name.name for name in folder.iterdir() if name.name.startswith("."))


def test_a_failing_source_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"a good film")

    def fails():
        yield clip(5)
        raise RuntimeError("decoder died")

    with pytest.raises(RuntimeError, match="decoder died"):
        video.write(fails(), target, 16)
    assert target.read_bytes() == b"a good film"
    assert leftovers(tmp_path) == []


def test_a_stop_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"a good film")

    def stopped():
        yield clip(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write(stopped(), target, 16)
    assert target.read_bytes() == b"a good film"
    assert leftovers(tmp_path) == []


def test_nan_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"a good film")
    frames = clip(5)
    frames[3, 0, 0, 0] = float("nan")
    with pytest.raises(NumericError, match="NaN or infinity"):
        video.write(frames, target, 16)
    assert target.read_bytes() == b"a good film"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The system's own refusal, deep inside FFmpeg's writer: a limit on the size of any file of the process."""
    program = textwrap.dedent(
        """
        import resource, sys, torch
        from wan_local import errors, video
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            video.write(torch.rand(17, 128, 128, 3), sys.argv[1], 16)
        except errors.OutputError as error:
            print(error)
        """
    )
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"a good film")
    done = subprocess.run(
        [sys.executable, "-c", program, str(target)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "clip.mp4" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert target.read_bytes() == b"a good film"
    assert leftovers(tmp_path) == []


def test_no_space_at_the_move_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"a good film")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wan_local.output.os.fsync", full)
    with pytest.raises(OutputError, match=r"can't write .*clip\.mp4: No space left on device"):
        video.write(clip(5), target, 16)
    assert target.read_bytes() == b"a good film"
    assert leftovers(tmp_path) == []


def test_everything_is_written_where_only_what_may_be_written_can_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        """As Windows has it."""
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("wan_local.output.os.fsync", fsync)
    frames = clip(2)
    video.write(frames, tmp_path / "clip.mp4", 16)
    video.write_frames(frames, tmp_path / "frames")
    contact_sheet.write(frames, {}, tmp_path / "sheet.png")
    kept.write(tmp_path / "clip.latents.safetensors", torch.zeros(1, 16, 1, 2, 2))
    TextCache(tmp_path / "prompts").put("0" * 64, torch.ones(2, 4))
    files = sorted(path.name for path in tmp_path.rglob("*.*"))
    assert files == ["0" * 64 + ".safetensors", "clip.latents.safetensors", "clip.mp4", "frame_00000.png",
                     "frame_00001.png", "sheet.png"]  # fmt: skip


def test_a_temporary_file_that_stays_does_not_hide_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is gone refuses both, and so does Windows while a virus scanner reads it."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def fail() -> None:
        monkeypatch.setattr(Path, "unlink", refuse)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OutputError, match=r"can't write .*clip\.mp4: Input/output error"):
        with replacing(tmp_path / "clip.mp4"):
            fail()


def test_a_good_file_is_replaced_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").write_bytes(b"old")
    (tmp_path / "real.mp4").chmod(0o640)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real.mp4")
    video.write(clip(5), tmp_path / "link.mp4", 16)
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real.mp4").stat().st_mode & 0o777 == 0o640
    assert video.read(tmp_path / "real.mp4")[0].shape[0] == 5


def test_a_long_name_of_letters_that_take_three_bytes_each(tmp_path: Path) -> None:
    path = tmp_path / f"{'鹤' * 80}.mp4"
    video.write(clip(5), path, 16)
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"clip\.avi does not end in \.mp4, \.mov, \.mkv"):
        video.check_path(tmp_path / "clip.avi")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match=r"folder\.mp4 is a folder"):
        video.check_path(tmp_path / "folder.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"can't write .*clip\.mp4"):
        video.check_path(tmp_path / "file" / "clip.mp4")
    with pytest.raises(OutputError, match="MB are free; make room"):
        video.check_path(tmp_path / "clip.mp4", need_bytes=10**18)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("wan_local.output.os.open", refuse)  # root is refused nothing, so the system is played
    with pytest.raises(OutputError, match=r"can't write .*clip\.mp4: Permission denied"):
        video.check_path(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("sheet", "frames", "message"),
    [
        ("sheet.png", "out/frames", ""),
        ("out/../out/clip.mp4", None, "--output out/clip.mp4 and --sheet out/../out/clip.mp4 can't both be there"),
        ("link/clip.mp4", None, "can't both be there"),
        (None, "out", "--frames out and --output out/clip.mp4 would lie in one folder; name a folder that"),
        (None, ".", "would lie in one folder"),
        ("frames/sheet.png", "frames", "--frames frames and --sheet frames/sheet.png would lie in one folder"),
        (None, "out/clip.mp4", "--output out/clip.mp4 and --frames out/clip.mp4 can't both be there"),
        (None, "link/clip.mp4/frames", "can't both be there"),
    ],
)
def test_results_that_are_in_each_other_s_way(
    sheet: str | None, frames: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("out")
    files, folders = {"--output": "out/clip.mp4", "--sheet": sheet}, {"--frames": frames}
    if not message:
        return check_apart(files, folders)
    with pytest.raises(OutputError) as error:
        check_apart(files, folders)
    assert message in str(error.value)


def test_a_folder_that_may_hold_more_may_hold_a_file_but_not_be_it() -> None:
    check_apart({"--output": "out/clip.mp4"}, {"--keep": "out"}, alone=False)
    with pytest.raises(OutputError, match="can't both be there"):
        check_apart({"--output": "clip.mp4"}, {"--keep": "clip.mp4"}, alone=False)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    video.write(clip(5), tmp_path / "new" / "deep" / "clip.mp4", 16)
    assert (tmp_path / "new" / "deep" / "clip.mp4").stat().st_size > 0
