"""Video files: what is written is read again. Colour and whole files: test_video_colour.py and test_output.py."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.wan_local.video_clip import clip
from wan_local import ends, video
from wan_local.errors import InputError, OutputError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 47), (33, 64)])
def test_odd_sizes_are_rounded_up(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = clip(5, *size)
    video.write(frames, tmp_path / "odd.mp4", 16)
    back, _ = video.read(tmp_path / "odd.mp4")
    height, width = (side + side % 2 for side in size)
    assert back.shape == (5, height, width, 3)
    whole = F.pad(frames.permute(0, 3, 1, 2), (0, width - size[1], 0, height - size[0]), mode="replicate")
    assert ends.psnr(back.permute(0, 3, 1, 2), whole) > 30


def test_chunks_give_the_file_that_the_whole_gives(tmp_path: Path) -> None:
    frames = clip(9)
    video.write(frames, tmp_path / "whole.mp4", 16)
    video.write(iter([frames[:1], frames[1:5], frames[5:]]), tmp_path / "chunks.mp4", 16)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "chunks.mp4").read_bytes()


def test_chunks_are_taken_one_at_a_time(tmp_path: Path) -> None:
    there: list[int] = []

    def chunks():
        for index in range(4):
            there.append(len(list((tmp_path / "frames").iterdir())))
            yield clip(4)[index : index + 1]

    video.write_frames(chunks(), tmp_path / "frames")
    assert there == [0, 1, 2, 3], "each is written before the next is made"


def test_an_incomplete_file_is_not_passed_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_count_packets", lambda path: 3)
    with pytest.raises(OutputError, match="incomplete"):
        video.write(clip(5), tmp_path / "clip.mp4", 16)
    assert list(tmp_path.iterdir()) == []


# -- wrong input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [0, -1, 1000, float("nan"), float("inf"), "fast", None])
def test_fps_that_is_none(tmp_path: Path, fps: object) -> None:
    with pytest.raises(InputError, match=f"fps={fps} is not a frame rate"):
        video.write(clip(5), tmp_path / "clip.mp4", fps)  # type: ignore[arg-type]


def test_frames_that_are_none(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    with pytest.raises(InputError, match="no frames"):
        video.write(iter([]), target, 16)
    with pytest.raises(InputError, match=r"shape \[3, 5, 8, 8\]"):
        video.write(torch.zeros(3, 5, 8, 8), target, 16)
    with pytest.raises(InputError, match="a video has one size"):
        video.write(iter([torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 16, 3)]), target, 16)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.mp4 is not there"):
        video.read(tmp_path / "nowhere.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(InputError, match=r"text\.mp4 can't be read as a video"):
        video.read(tmp_path / "text.mp4")


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_phone_s_video_is_read_as_players_show_it(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    """It lies on its side, with a matrix in its header (ISO/IEC 14496-12, tkhd). ``turns``: quarters, anticlockwise."""
    path = tmp_path / "a.mp4"
    video.write(clip(3), path, 8)
    before, _ = video.read(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # of the matrix: rows of a, b, u
    a, b, c, d = (each << 16 for each in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames, _ = video.read(path)
    assert torch.equal(frames, torch.rot90(before, turns, (1, 2)))


def test_a_recorder_that_states_the_rate_of_its_clock_is_not_believed(tmp_path: Path) -> None:
    """A thousand frames a second of a clip that has ten: nothing of it could be written again."""
    path = tmp_path / "recorded.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width, stream.height = 32, 32
        for at in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 6 * at, np.uint8), format="rgb24")
            frame.pts = 100 * at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames, fps = video.read(path)
    assert len(frames) == 40
    assert fps == pytest.approx(10, rel=0.05)


def test_reading_can_be_stopped_between_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    video.write(clip(9), path)
    looks = []

    def halt() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.read(path, halt)
    assert len(looks) == 3
    assert video.read(path, lambda: None)[0].shape[0] == 9


@pytest.mark.parametrize("told", [-1, 1, 4, 9, 20])
def test_a_file_may_be_wrong_about_how_many_frames_it_has(tmp_path: Path, monkeypatch, told: int) -> None:
    path = tmp_path / "clip.mp4"
    video.write(clip(9), path)
    whole = video.read(path)[0]
    monkeypatch.setattr(video, "_count_packets", lambda path: told)
    assert torch.equal(video.read(path)[0], whole)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_a_video_is_read_into_its_own_room_alone(tmp_path: Path) -> None:
    """Its frames are the largest thing around: there is no room for a second copy of them."""
    path = tmp_path / "clip.mp4"
    video.write(clip(33, 480, 832), path)
    code = """
        import re, sys
        from wan_local import video
        peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        video.read(sys.argv[2])
        before = peak()
        frames = video.read(sys.argv[1])[0]
        size = frames.numel() * frames.element_size()
        # What a decoder of several threads holds is 0.4 of it here; a second copy would be 1.
        assert peak() - before < 1.6 * size, (peak() - before, size)
    """
    video.write(clip(1), tmp_path / "small.mp4")
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / "small.mp4")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# -- numbered frames --------------------------------------------------------------------------------------------


def test_frames_as_numbered_pngs(tmp_path: Path) -> None:
    frames = clip(5, 16, 32)
    assert video.write_frames(iter([frames[:1], frames[1:]]), tmp_path / "frames") == 5
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{index:05d}.png" for index in range(5)]
    with Image.open(tmp_path / "frames" / "frame_00004.png") as image:
        assert image.size == (32, 16)
        assert image.tobytes() == video.to_uint8(frames[4]).numpy().tobytes()
    with pytest.raises(OutputError, match="is not empty"):
        video.write_frames(frames[:1], tmp_path / "frames")
