"""Bodies as they come in: unpacked, bounded, and JSON without the images that it repeats."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

import requests

from .cutoff import Cutoff

PIECE = 2**16  # bytes at once, at most
MOST_READ = 512 * 2**20  # of an answer: a list may repeat the images of a hundred jobs
MOST_BYTES = 32 * 2**20  # of what is kept of it
LONGEST_STRING = 2**17  # bytes; a longer string of JSON is an image
PACKED = ("gzip", "x-gzip", "deflate")


class Unreadable(Exception):  # noqa: N818
    """A body packed in a way that nobody asked for, or packed badly; says which."""


class TooMuch(Exception):  # noqa: N818
    """A body larger than anything that is wanted."""


def read(response: requests.Response, cutoff: Cutoff) -> bytes | None:
    """The whole body without long strings; None if it is too large.

    Raises:
        Unreadable: it can't be unpacked.
        CutOff: it took too long.
    """
    parts = bounded(without_long_strings(bounded(unpacked(response, cutoff), MOST_READ)), MOST_BYTES)
    try:
        return b"".join(parts)
    except TooMuch:
        return None


def bounded(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The same, unless there is too much of it.

    Raises:
        TooMuch: more than ``most`` bytes.
    """
    size = 0
    for part in parts:
        size += len(part)
        if size > most:
            raise TooMuch(f"more than {most} bytes")
        yield part


def encoding(response: requests.Response) -> str:
    """How a body is packed, in small letters; empty if it is not."""
    how = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if how == "identity" else how


def unpacked(response: requests.Response, cutoff: Cutoff, most: int = PIECE) -> Iterator[bytes]:
    """The body in pieces of ``most`` bytes, also one that is packed although it was asked for as it is.

    Raises:
        Unreadable: it can't be unpacked.
        CutOff: it took too long.
    """
    how = encoding(response)
    if how and how not in PACKED:
        raise Unreadable("its answer is packed in a way that was not asked for")
    parts = _arriving(response, cutoff, most)
    return _inflated(parts, most) if how else parts


def _arriving(response: requests.Response, cutoff: Cutoff, most: int) -> Iterator[bytes]:
    """The HTTP library's own pieces wait until they are full, however slowly they fill."""
    raw = response.raw
    take: Callable[[int], bytes] = getattr(raw, "read1", None) or raw._fp.read1
    while part := take(most):
        cutoff.moved(len(part))
        yield part
    cutoff.check()  # an end of our own making is none


def _inflated(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Unpacked in steps, so that a small body that unpacks to a huge one costs no memory."""
    unpack, begun = zlib.decompressobj(zlib.MAX_WBITS | 32), False  # either header
    try:
        for part in parts:
            if not begun:
                unpack, begun = _unpacker(part), True
            while part and not unpack.eof:
                yield unpack.decompress(part, most)
                part = unpack.unconsumed_tail
        yield unpack.flush()
    except zlib.error:
        raise Unreadable("its answer can't be unpacked") from None
    if begun and not unpack.eof:
        raise Unreadable("its answer is cut short")


def _unpacker(part: bytes) -> zlib._Decompress:
    """Some say "deflate" and leave out its header."""
    try:
        zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(part, 1)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS)
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


def without_long_strings(parts: Iterable[bytes], longest: int = LONGEST_STRING) -> Iterator[bytes]:
    """JSON text in which every string of more than ``longest`` bytes is empty, read without ever holding one."""
    inside = escaped = False
    held: list[bytes] = []  # the string that is being read, as far as it may still be short
    size = 0
    for part in parts:
        out: list[bytes] = []
        start = 0
        while start < len(part):
            quote = part.find(b'"', start)
            end = len(part) if quote < 0 else quote
            piece = part[start:end]
            if not inside:
                out.append(piece)
            elif size <= longest:
                held.append(piece)
            size += len(piece)
            start = end + 1
            escaped = inside and _odd_backslashes(piece, escaped)
            if quote < 0:
                continue
            if escaped:
                held.append(b'"')
                size, escaped = size + 1, False
                continue
            if inside and size <= longest:
                out += held
            out.append(b'"')
            inside, held, size = not inside, [], 0
        if inside and size > longest:
            held = []
        yield b"".join(out)
    yield b"".join(held)


def _odd_backslashes(piece: bytes, before: bool) -> bool:
    """Whether what comes after a piece is escaped, if its first byte was or was not."""
    count = len(piece) - len(piece.rstrip(b"\\"))
    return (count % 2 == 1) != (before and count == len(piece))
