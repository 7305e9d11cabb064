"""Colour survives writing and reading, whatever PyAV there is: ``make test`` runs this on the oldest one too."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from tests.wan_local.video_clip import clip
from wan_local import ends, video

# Luma weights of red and blue by the number of the matrix in H.264's table: BT.709, SMPTE 170M (BT.601), BT.2020.
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
UNSPECIFIED = 2


def mean_shift(back: Tensor, frames: Tensor) -> float:
    """The largest difference in mean colour of a frame, of 255."""
    return (back - frames).mean(dim=(1, 2)).abs().max().item() * 255


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_round_trip_keeps_frames_and_colour(tmp_path: Path, suffix: str) -> None:
    frames = clip()
    video.write(frames, tmp_path / f"clip{suffix}", 16)
    back, fps = video.read(tmp_path / f"clip{suffix}")
    assert back.shape == frames.shape
    assert fps == 16
    figures = [ends.psnr(ours, theirs) for ours, theirs in zip(back, frames, strict=True)]
    shift = mean_shift(back, frames)
    print(f"PyAV {av.__version__}, {suffix}: PSNR first {figures[0]:.1f}, worst {min(figures):.1f}, "
          f"last {figures[-1]:.1f} dB, largest mean colour shift {shift:.2f} of 255")  # fmt: skip
    assert min(figures) > 44.5
    assert shift < 0.25
    assert abs(figures[0] - figures[-1]) < 2  # both ends matter


@pytest.mark.parametrize(
    "colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.9, 0.2, 0.6)]
)
def test_flat_colours_come_back_within_one_level(tmp_path: Path, colour: tuple[float, ...]) -> None:
    frames = torch.tensor(colour, dtype=torch.float32).expand(5, 32, 32, 3)
    video.write(frames, tmp_path / "flat.mp4", 16)
    back, _ = video.read(tmp_path / "flat.mp4")
    assert (back - frames).abs().max().item() * 255 <= 1.01


def test_file_is_tagged_and_its_index_is_in_front(tmp_path: Path) -> None:
    video.write(clip(), tmp_path / "clip.mp4", Fraction(30000, 1001))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert codec.name == "h264"
        assert codec.pix_fmt == "yuv420p"
        assert (int(codec.colorspace), int(codec.color_primaries), int(codec.color_trc)) == (1, 1, 1)
        assert int(codec.color_range) == 1  # limited
        assert stream.average_rate == Fraction(30000, 1001)
    content = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    # Players that go by the container find the same there: ISO/IEC 14496-12, colour information box.
    assert b"colrnclx\0\1\0\1\0\1\0" in content


def test_luma_is_rounded_not_cut(tmp_path: Path) -> None:
    # White at 0.6 of a level below the next: 16 + 219 * 0.5 = 125.5, and a value just above it.
    video.write(torch.full((5, 64, 64, 3), 0.5 + 0.4 / 219), tmp_path / "grey.mp4", crf=1)
    with av.open(tmp_path / "grey.mp4") as container:
        planes = next(container.decode(video=0)).to_ndarray()  # [3/2 H, W], luma first
    assert (planes[:64] == 126).all()
    assert video.to_uint8(torch.tensor([[[0.9 / 255, 1.5001 / 255, 254.6 / 255]]])).tolist() == [[[1, 2, 255]]]


@pytest.mark.parametrize("across", [1, 2], ids=["rows", "columns"])
def test_fine_stripes_keep_their_mean_colour(tmp_path: Path, across: int) -> None:
    """Chroma has half as many rows and columns: each must stand for all pixels it covers, not for one of them."""
    stripes = torch.tensor([[0.8, 0.3, 0.2], [0.2, 0.4, 0.8]])  # orange, blue
    shape = [1, 1, 1, 3]
    shape[across] = 64
    frames = stripes.repeat(32, 1).view(shape).expand(5, 64, 64, 3)
    video.write(frames, tmp_path / "stripes.mp4", crf=1)
    back, _ = video.read(tmp_path / "stripes.mp4")
    assert mean_shift(back, frames) < 1.5


def by_formula(frames: Tensor, matrix: int, full_range: bool) -> Tensor:
    """``[F, H, W, 3]`` 0..1 to the planes ``[F, 3, H, W]`` uint8 of the published formula, no chroma left out."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = frames.unbind(-1)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    if full_range:
        planes = [255 * luma, 128 + 255 * u, 128 + 255 * v]
    else:
        planes = [16 + 219 * luma, 128 + 224 * u, 128 + 224 * v]
    return torch.stack(planes, dim=1).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("tag", "matrix", "height"),
    [(1, 1, 64), (6, 6, 64), (9, 9, 64), (UNSPECIFIED, 6, 718), (UNSPECIFIED, 1, 720), (6, 6, 720)],
)
def test_files_of_others_are_read_by_their_matrix_and_range(
    tmp_path: Path, tag: int, matrix: int, height: int, full_range: bool
) -> None:
    """Without a tag, by what players take for that height."""
    frames = clip(3, height, 64)
    path = tmp_path / "theirs.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full_range else 1
        for index, planes in enumerate(by_formula(frames, matrix, full_range)):
            image = av.VideoFrame.from_ndarray(planes.numpy(), format="yuv444p")
            # So marked, no version of PyAV converts the image to what the encoder is marked with.
            image.colorspace, image.color_range = tag, 2 if full_range else 1
            image.pts = index
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    back, _ = video.read(path)
    assert mean_shift(back, frames) < 0.5
    assert min(ends.psnr(ours, theirs) for ours, theirs in zip(back, frames, strict=True)) > 42
