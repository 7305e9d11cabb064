"""Files that are no whole video."""

from __future__ import annotations

import struct

import pytest

from wan_remote.container import why_no_video


def box(kind: bytes, size: int = 16) -> bytes:
    return struct.pack(">I", size) + kind + bytes(size - 8)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "its frames can't be decoded"),
        (b"<html>no</html>", "its frames can't be decoded"),
        (box(b"ftyp"), "it lacks moov, mdat"),
        (box(b"ftyp") + box(b"moov"), "it lacks mdat"),
        (box(b"ftyp") + box(b"moov")[:-1], "it ends in the middle of a box"),
        (box(b"ftyp") + b"\0\0", "it ends in the middle of a box"),
        (box(b"ftyp") + struct.pack(">I", 4) + b"moov", "it ends in the middle of a box"),
        (box(b"moov") + box(b"ftyp"), "it has no video stream"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 999), "it ends in the middle of a box"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I", 0) + b"mdat", "it has no video stream"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 16), "it has no video stream"),
    ],
)
def test_files_that_are_no_whole_video_are_told(tmp_path, data, why):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert why_no_video(path) == why
