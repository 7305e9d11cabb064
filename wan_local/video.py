"""Video files: H.264 out, anything FFmpeg reads in, through PyAV.

The conversion to Y'CbCr is our own and starts from the floats: one rounding instead of two, chroma where readers
look for it, and a matrix that matches the tags in the file, so that the first and last frame keep their
colour in every player.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .errors import InputError, NumericError, OutputError
from .handover import hand_over
from .output import check_new_folder, check_writable, replacing

APPROXIMATIONS = "approximations"  # tag of a file: what was not calculated in full to make it
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
CRF = 12  # x264's constant quality: visually the same as the frames
# mbtree spends bits on what later frames refer to, so the last frame would come out worst; and with it the bytes of
# the file differ from one run to the next (measured: five kinds in eight).
X264 = "mbtree=0"
FPS = 16  # of all training clips
MAX_FPS = 240
BT709 = 1  # the number of BT.709 in H.264's tables of primaries, transfer and matrix
UNSPECIFIED = 2  # there too
LIMITED = 1  # the number of the range 16..235 in FFmpeg
KR, KB = 0.2126, 0.0722  # luma weights of red and blue, ITU-R BT.709
HD_HEIGHT = 720  # without a tag, players take BT.709 from here on and BT.601 below
# Of FFmpeg's scale filter. Without the last two the image comes out a level darker (measured: -0.9 to -1.4 of 255).
SCALE = "flags=bicubic+accurate_rnd+full_chroma_int:in_chroma_loc=left"

Chunks = Tensor | Iterable[Tensor]


def check_path(path: str | PathLike[str], need_bytes: int = 0) -> Path:
    """Make sure that a video can be written to ``path``; see :func:`wan_local.output.check_writable`."""
    if Path(path).suffix.lower() not in CONTAINERS:
        raise OutputError(f"{path} does not end in {', '.join(CONTAINERS)}; name the video so")
    return check_writable(Path(path), need_bytes)


def check_fps(fps: float | str | Fraction) -> Fraction:
    """``fps`` as a fraction, or :class:`InputError`."""
    try:
        rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 and the like come out exactly
    except (TypeError, ValueError, OverflowError):
        rate = Fraction(0)
    if not 0 < rate <= MAX_FPS:
        raise InputError(f"fps={fps} is not a frame rate; use more than 0 and at most {MAX_FPS}, such as {FPS}")
    return rate


def write(
    frames: Chunks,
    path: str | PathLike[str],
    fps: float | Fraction = FPS,
    *,
    crf: float = CRF,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write frames as H.264 (yuv420p, BT.709, limited range, index in front).

    Args:
        frames: ``[F, H, W, 3]`` 0..1, or an iterable of such chunks, of which few are held at a time: it goes on while
            those before are encoded. They become bytes on the device they are on.
        path: ``.mp4``, ``.mov`` or ``.mkv``. A file there is replaced when the new one is complete, not before.
        fps: frames a second.
        crf: quality of x264, 0 (largest) to 51 (worst).
        metadata: tags of the file, any names.

    An odd side is rounded up by repeating its last row or column: 4:2:0 has no odd sizes.

    Raises:
        InputError: no frames, or frames of another shape.
        NumericError: NaN or infinity in a frame.
        OutputError: the file could not be written.
    """
    rate = check_fps(fps)
    target = check_path(path)
    with replacing(target) as temporary:
        container = CONTAINERS[target.suffix.lower()]
        count = hand_over(
            _chunks(frames), lambda chunks: _encode(chunks, temporary, container, rate, crf, metadata or {})
        )
        # FFmpeg does not always pass on a full disk, so the file itself is asked.
        if _count_packets(temporary) != count:
            raise OutputError(f"{path} came out incomplete; is the disk full?")


def read(path: str | PathLike[str], before_frame: Callable[[], None] = lambda: None) -> tuple[Tensor, float]:
    """Read a whole video.

    Args:
        path: of the file.
        before_frame: called before each frame; what it raises ends the reading.

    Returns:
        frames ``[F, H, W, 3]`` float32 0..1, and frames a second.

    Raises:
        InputError: missing or not a video.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not there; check the path of the video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video stream; name a video file")
            stream = container.streams.video[0]
            frames = _read_frames(container.decode(stream), _count_packets(Path(path)), before_frame)
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            if not 0 < fps <= MAX_FPS and container.duration:  # some recorders state the clock of their time stamps
                fps = len(frames) * av.time_base / container.duration
    except av.error.FFmpegError as error:
        raise InputError(f"{path} can't be read as a video ({error.strerror}); use mp4") from error
    if not len(frames):
        raise InputError(f"{path} has no frames; name a complete video file")
    return frames, fps


def write_frames(frames: Chunks, folder: str | PathLike[str]) -> int:
    """Write ``frame_00000.png`` and so on to a new or empty folder; return how many.

    Args:
        frames: as for :func:`write`.
    """
    target = check_new_folder(Path(folder))
    index = 0
    for chunk in _chunks(frames):
        for frame in to_uint8(chunk):
            with replacing(target / f"frame_{index:05d}.png") as temporary:
                Image.fromarray(frame.numpy()).save(temporary)
            index += 1
    return index


def to_uint8(frames: Tensor) -> Tensor:
    """``[..., 3]`` 0..1 to uint8 on the CPU, rounded to the nearest level and not cut down to the one below."""
    return (_finite(frames).detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu()


# -- out --------------------------------------------------------------------------------------------------------


def _chunks(frames: Chunks) -> Iterator[Tensor]:
    """Each chunk checked to be ``[n, H, W, 3]`` of one size."""
    size: tuple[int, ...] | None = None
    for chunk in [frames] if isinstance(frames, Tensor) else frames:
        shape = tuple(chunk.shape)
        if chunk.ndim != 4 or shape[3] != 3 or 0 in shape[1:] or not chunk.is_floating_point():
            raise InputError(f"frames have shape {list(shape)} and dtype {chunk.dtype}; give floats [F, H, W, 3] 0..1")
        if size not in (None, shape[1:]):
            raise InputError(f"frames change from {size} to {shape[1:]}; a video has one size")
        size = shape[1:]
        if shape[0]:
            yield chunk


def _finite(frames: Tensor) -> Tensor:
    if not torch.isfinite(frames).all():
        raise NumericError("frames hold NaN or infinity; nothing sound can be written, check the run that made them")
    return frames


def _encode(
    chunks: Iterator[Tensor], path: Path, container: str, rate: Fraction, crf: float, metadata: Mapping[str, str]
) -> int:
    first = next(chunks, None)
    if first is None:
        raise InputError("there are no frames; a video needs at least one")
    height, width = (side + side % 2 for side in first.shape[1:3])
    count = 0
    index_in_front = {} if container == "matroska" else {"movflags": "+faststart+use_metadata_tags"}
    encoder = {"crf": str(crf), "preset": "medium", "x264-params": X264}
    with av.open(str(path), "w", format=container, options=index_in_front) as out:
        out.metadata.update(metadata)
        stream: Any = out.add_stream("libx264", rate=rate, options=encoder)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # The encoder goes by these tags alone, not by those of frames (which can't hold them all below PyAV 17).
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED
        for chunk in itertools.chain([first], chunks):
            for frame in chunk:
                image = av.VideoFrame.from_ndarray(_to_yuv420(frame), format="yuv420p")
                image.pts = count
                count += 1
                out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return count


def _to_yuv420(frame: Tensor) -> np.ndarray:
    """``[H, W, 3]`` 0..1 to the three planes of limited-range BT.709, stacked as ``[H * 3 / 2, W]`` uint8.

    ITU-R BT.709-6, 8 bit. Chroma sits on the even columns, between two rows: H.264's default, which readers go by
    (measured through FFmpeg: 0.7 dB better than the mean of 2 x 2 pixels).
    """
    rgb = _finite(frame).detach().float().clamp(0.0, 1.0).permute(2, 0, 1)  # [3, H, W]
    rgb = F.pad(rgb, (0, rgb.shape[2] % 2, 0, rgb.shape[1] % 2), mode="replicate")
    red, green, blue = rgb
    luma = KR * red + (1 - KR - KB) * green + KB * blue  # [H, W] 0..1
    chroma = torch.stack([(blue - luma) / (2 - 2 * KB), (red - luma) / (2 - 2 * KR)])  # [2, H, W] -0.5..0.5
    rows = (chroma[:, 0::2] + chroma[:, 1::2]) / 2
    rows = F.pad(rows, (1, 0), mode="replicate")  # the last column is odd, so nothing is missing on the right
    half = (rows[:, :, 0:-1:2] + 2 * rows[:, :, 1::2] + rows[:, :, 2::2]) / 4  # [2, H / 2, W / 2]
    planes = torch.cat([(16 + 219 * luma).flatten(), (128 + 224 * half).flatten()])
    return planes.round().to(torch.uint8).view(-1, rgb.shape[2]).cpu().numpy()


def _count_packets(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except av.error.FFmpegError:
        return -1


# -- in ---------------------------------------------------------------------------------------------------------


def _read_frames(decoded: Iterable[av.VideoFrame], expected: int, before_frame: Callable[[], None]) -> Tensor:
    """``[F, H, W, 3]`` 0..1, each frame put where it stays: a second copy of them all would be gigabytes."""
    frames, count = torch.empty(0), 0
    for frame in decoded:
        before_frame()
        image = torch.from_numpy(_upright(_to_rgb(frame), frame.rotation))
        if count == 0:
            frames = torch.empty(max(expected, 1), *image.shape)
        elif image.shape != frames.shape[1:]:
            raise InputError(f"frames change to {list(image.shape[:2])} in mid-film; use a video of one size")
        elif count == len(frames):  # the file said less
            frames = torch.cat([frames, torch.empty_like(frames)])
        frames[count].copy_(image).div_(255.0)
        count += 1
    return frames[:count]


def _upright(image: np.ndarray, rotation: float) -> np.ndarray:
    """``[H, W, 3]`` as players show it: phones film on their side, and note down how far to turn it.

    Args:
        rotation: degrees against the clock; only whole quarters are turned.
    """
    return np.ascontiguousarray(np.rot90(image, round(rotation / 90)))


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """``[H, W, 3]`` uint8, by the matrix and range that the file names, or those players assume without a name.

    Through FFmpeg's filter and not ``frame.reformat``: below PyAV 17 that leaves BT.709 undone and chroma half a pixel
    off, and below 18 it has no names for the flags, while the filter's options mean the same in every version. Where a
    frame says that its chroma lies, no version tells: it is taken to lie where H.264, HEVC and VP9 have it by default.
    """
    scale = SCALE
    if int(frame.colorspace) == UNSPECIFIED:
        scale += f":in_color_matrix={'bt709' if frame.height >= HD_HEIGHT else 'bt601'}"
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    graph.link_nodes(source, graph.add("scale", scale), graph.add("format", "rgb24"), graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    rgb: Any = graph.pull()
    return rgb.to_ndarray()
