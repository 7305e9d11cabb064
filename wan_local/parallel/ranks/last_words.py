"""What a process wrote last: the end of a stream, kept small, and the line in it that tells why the process ended."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Sequence

from .errors import last_line, one_line

WHAT = "what():"  # before the text of a C++ exception that nobody caught; a stack of frames follows it
TELLING = re.compile(r"\b(\w*error|\w*exception|fatal|abort(ed)?|assertion)\b", re.IGNORECASE)
PIECE = 1 << 16


class Tail:
    """Reads a stream to its end in a thread of its own, so that whoever writes is never held up, and keeps the end.

    Args:
        stream: unbuffered; closed when its other end is.
        size: bytes to keep.
    """

    def __init__(self, stream: io.RawIOBase, size: int) -> None:
        self._stream, self._size = stream, size
        self._kept = b""
        self._ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def text(self, limit: float = 0.0) -> str:
        """The end of it, after waiting up to ``limit`` seconds for the stream's own end."""
        self._ended.wait(limit)
        return self._kept.decode(errors="replace")

    def _read(self) -> None:
        try:
            while piece := self._stream.read(PIECE):
                self._kept = (self._kept + piece)[-self._size :]
        except (OSError, ValueError):
            pass  # as good as its end
        finally:
            self._ended.set()
            self._stream.close()


def telling(lines: Sequence[str], otherwise: bool = True) -> str:
    """The line that tells why a process ended: of a C++ exception its text, else the last one that names an error.

    Args:
        otherwise: take the last line where none does; else the answer is empty then.
    """
    told = [" ".join(line.split()) for line in lines if line.strip()]
    for line in reversed(told):
        if line.startswith(WHAT):
            return one_line(line)
    for line in reversed(told):
        if TELLING.search(line) and not line.startswith("frame #"):
            return one_line(line)
    return last_line(told) if otherwise else ""
