"""Small real MP4 files, made once with PyAV; each job gets its own bytes, so that a mixed-up file shows."""

from __future__ import annotations

import functools
import io
import struct

import av
import numpy as np


@functools.cache
def clip(frames: int = 81, width: int = 128, height: int = 72, fps: int = 16) -> bytes:
    """An H.264 clip of a square moving over noise; boxes in the order ftyp, free, mdat, moov."""
    noise = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "35"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            image = noise.copy()
            left = 8 + i % (width - 40)
            image[20:52, left : left + 32] = (250, 40, 40)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


def tagged(data: bytes, tag: str) -> bytes:
    """The clip with a ``free`` box that names its job: other bytes, the same video."""
    word = tag.encode()
    return data + struct.pack(">I4s", 8 + len(word), b"free") + word


def boxes(data: bytes) -> list[tuple[str, int, int]]:
    """(name, start, size) of the boxes at the top level."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        found.append((name.decode("latin-1"), at, size))
        at += max(size, 8)
    return found


def without_moov(data: bytes) -> bytes:
    """Cut at the border of a box: a valid beginning that no player opens."""
    start = next(start for name, start, _ in boxes(data) if name == "moov")
    return data[:start]
