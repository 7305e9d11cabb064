"""Whether a file is a whole video, and what is in it.

An MP4 file has to have all of its parts: what was cut off decodes without a complaint up to the cut. Other containers
are taken as they are if their frames decode, for a clip that was paid for is a clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEADER, LONG_HEADER = 8, 16  # bytes
NEEDED = ("ftyp", "moov", "mdat")
ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".video")
"""Of the files that may come out; the last one for whatever else decodes."""
STILL = ("image2", "_pipe", "gif")  # in the names of what reads images


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What the header of a video says: pixels, frames and seconds."""

    width: int
    height: int
    frames: int
    seconds: float


def why_no_video(path: Path) -> str | None:
    """What is wrong with the file, or None. Source of the layout: ISO/IEC 14496-12, section 4.2."""
    with path.open("rb") as file:
        is_mp4 = file.read(HEADER)[4:] == b"ftyp"
    return (_why_not_whole(path) if is_mp4 else None) or _why_not_decoded(path)


def ending(path: Path) -> str:
    """What a video file's name should end in, by its content."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        return ".mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return ".webm" if b"webm" in head else ".mkv"
    return ".avi" if head.startswith(b"RIFF") else ENDINGS[-1]


def measure(path: Path) -> Clip | None:
    """Size and length of a video, or None if it does not say."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            length = float((container.duration or 0) / av.time_base)
            frames = stream.frames or round(length * float(stream.average_rate or 0))
            return Clip(width=stream.width, height=stream.height, frames=frames, seconds=length)
    except (av.error.FFmpegError, ValueError, EOFError, IndexError):
        return None


def _why_not_whole(path: Path) -> str | None:
    size, at, found = path.stat().st_size, 0, set[str]()
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(LONG_HEADER)
            length, kind = int.from_bytes(head[:4], "big"), head[4:HEADER]
            if length == 1:
                length = int.from_bytes(head[HEADER:LONG_HEADER], "big")
            elif length == 0:  # up to the end
                length = size - at
            if len(kind) < 4 or length < HEADER or at + length > size:
                if found.issuperset(NEEDED):  # stray bytes behind a whole video
                    return None
                return "it ends in the middle of a box"
            found.add(kind.decode("latin-1"))
            at += length
    lacking = [kind for kind in NEEDED if kind not in found]
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _why_not_decoded(path: Path) -> str | None:
    import av

    try:
        with av.open(str(path)) as container:
            if any(word in container.format.name for word in STILL):
                return "it is an image"
            if not container.streams.video:
                return "it has no video stream"
            frames = sum(1 for _ in container.decode(container.streams.video[0]))
    except (av.error.FFmpegError, ValueError, EOFError):
        return "its frames can't be decoded"
    return None if frames else "it has no frames"
