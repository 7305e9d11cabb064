"""Messages over a pair of pipes between the driver and one process it has started.

A pipe rather than a socket: nobody else on the machine can connect to it, so there is no port and no secret, and
its other end closes by itself however the driver dies. Frame: header length and number of buffers, the length of each
buffer, then the bytes (all lengths little endian, 64 bit).
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Sequence

from .messages import Buffer, Header

MAX_HEADER = 1 << 26  # 64 MiB: a header is structure only
MAX_BUFFERS = 1 << 16


class Channel:
    """One end. ``send`` may be called from several threads, ``receive`` from one."""

    def __init__(self, reader: io.RawIOBase, writer: io.RawIOBase) -> None:
        self._reader, self._writer = reader, writer
        self._sending = threading.Lock()

    def send(self, header: Header, buffers: Sequence[Buffer] = ()) -> None:
        """Write one message; blocks while the other side does not read. Raises OSError when it is gone."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        sizes = struct.pack(f"<{2 + len(views)}Q", len(header), len(views), *(len(view) for view in views))
        with self._sending:
            self._write(memoryview(sizes + header))
            for view in views:
                self._write(view)

    def receive(self) -> tuple[Header, list[bytearray]]:
        """The next message. Raises EOFError when the other side is gone, OSError on nonsense."""
        length, count = struct.unpack("<2Q", self._read(16))
        if length > MAX_HEADER or count > MAX_BUFFERS:
            raise OSError(f"a message with a header of {length} bytes and {count} buffers is not one of ours")
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        return bytes(self._read(length)), [self._read(size) for size in sizes]

    def close_writer(self) -> None:
        """Tell the other side that nothing more will come."""
        try:
            self._writer.close()
        except OSError:
            pass  # it is gone already, which is what we wanted

    def close_reader(self) -> None:
        """Nothing more will be read."""
        self._reader.close()

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._writer.write(view) :]

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._reader.readinto(view)
            if not got:
                raise EOFError("the other side is gone")
            view = view[got:]
        return data


def to_the_driver() -> Channel:
    """The started process's end: takes standard input and output for itself.

    What the process or a library prints goes to standard error from now on, and reading standard input gives
    nothing: neither can damage a message.
    """
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "wb", buffering=0))
