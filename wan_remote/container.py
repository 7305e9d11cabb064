"""Whether a file is a whole MP4 video: its boxes tile it exactly, and its frames decode."""

from __future__ import annotations

from pathlib import Path

HEADER, LONG_HEADER = 8, 16  # bytes
NEEDED = ("ftyp", "moov", "mdat")


def why_no_video(path: Path) -> str | None:
    """What is wrong with the file, or None. Source of the layout: ISO/IEC 14496-12, section 4.2."""
    return _why_no_boxes(path) or _why_not_decoded(path)


def _why_no_boxes(path: Path) -> str | None:
    size, at, found = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(LONG_HEADER)
            if len(head) < HEADER:
                return "it ends in the middle of a box"
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if at == 0 and kind != b"ftyp":
                return "it is no MP4 file"
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:  # up to the end
                length = size - at
            if length < HEADER or at + length > size:
                return "it ends in the middle of a box"
            found.add(kind.decode("latin-1"))
            at += length
    lacking = [kind for kind in NEEDED if kind not in found]
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _why_not_decoded(path: Path) -> str | None:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "it has no picture"
            frames = sum(1 for _ in container.decode(container.streams.video[0]))
    except (av.error.FFmpegError, ValueError, EOFError):
        return "its frames can't be decoded"
    return None if frames else "it has no frames"
