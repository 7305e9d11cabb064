"""Reading the safetensors format with checks that speak: header first, tensors memory mapped, one at a time.

Layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header with the dtype,
shape and byte range of every tensor, then the data, which the ranges cover without holes or overlaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import TypeGuard

from ...errors import UnreadableWeights
from ...words import counted
from ..source import Entry, reason, shown
from . import mistaken
from .mapped import MappedFile

MAX_HEADER = 100_000_000  # bytes; the safetensors library's own limit
MAX_TENSORS = 50_000  # real files have a few thousand
MAX_PARTS = 5_000_000  # commas and brackets of a header, those in the text of its metadata too
MAX_SIDES = 64  # what torch allows
MAX_SIDE = 2**63  # likewise
LENGTH_BYTES = 8
ITEM_BITS = {
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def looks_like(path: Path) -> bool:
    """Whether the first bytes could be a safetensors header."""
    with path.open("rb") as file:
        return _plausible(file.read(LENGTH_BYTES + 2))


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries and metadata of a file, without touching its tensors.

    Raises:
        UnreadableWeights: not a safetensors file, or one that is cut short, with what is missing.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(mistaken.LOOKED_AT)
            told = mistaken.told(start)
            start = start[: LENGTH_BYTES + 2]
            if told and not _plausible(start):  # a header's length may look like the mark of another format
                raise UnreadableWeights(f"{path} {told}")
            length = struct.unpack("<Q", start[:LENGTH_BYTES])[0] if _plausible(start) else 0
            if not _plausible(start) or length > MAX_HEADER:
                raise UnreadableWeights(
                    f"{path} is not a safetensors file (it starts with {start[:LENGTH_BYTES]!r} and is "
                    f"{counted(size, 'byte')} long); download it again, or name another file"
                )
            if LENGTH_BYTES + length > size:
                raise _cut_short(path, size, LENGTH_BYTES + length, "header")
            file.seek(LENGTH_BYTES)
            text = file.read(length)
    except FileNotFoundError as error:
        raise UnreadableWeights(f"{path} is not there; check the path") from error
    except OSError as error:
        raise UnreadableWeights(f"{path} can't be read ({error.strerror}); check its permissions") from error
    try:
        _check_amount(text)
        header, metadata = _parse(text)
        rows = {name: _row(name, row) for name, row in header.items()}
        end = max((stop for *_, stop in rows.values()), default=0)
        if LENGTH_BYTES + length + end <= size:
            _check_cover(rows, size - LENGTH_BYTES - length)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UnreadableWeights(f"{path} has a broken header ({reason(error)}); download it again") from error
    if LENGTH_BYTES + length + end > size:
        raise _cut_short(path, size, LENGTH_BYTES + length + end, "data")
    return _entries(MappedFile(path, safetensors=True), rows, LENGTH_BYTES + length), metadata


Row = tuple[str, tuple[int, ...], int, int]  # dtype, shape, first byte, byte behind the last, both behind the header


def _entries(file: MappedFile, rows: dict[str, Row], base: int) -> dict[str, Entry]:
    def entry(name: str, dtype: str, shape: tuple[int, ...], start: int, end: int) -> Entry:
        return Entry(
            shape=shape,
            dtype=dtype,
            read=lambda: file.read(name, dtype, shape, base + start, base + end),
            release=lambda first, last: file.release(base + start + first, base + start + last),
        )

    return {name: entry(name, *row) for name, row in rows.items()}


def _check_amount(text: bytes) -> None:
    """Refuse what would take minutes to make tables of, before any is made."""
    if text.count(b'"dtype"') > MAX_TENSORS:
        raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
    if max(text.count(b","), text.count(b"[")) > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS:,} commas or brackets")


def _parse(text: bytes) -> tuple[dict[str, object], dict[str, str]]:
    header = json.loads(text, object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("it is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"__metadata__ is {shown(metadata)}, not a table")
    return header, {str(name): str(value) for name, value in metadata.items()}


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):  # json would silently keep the last
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{shown(twice)} stands there twice")
    return table


def _row(name: str, row: object) -> Row:
    """One checked row of the header; the error names the tensor."""
    if not isinstance(row, dict):
        raise ValueError(f"{shown(name)} is {shown(row)}, not a table")
    dtype = row.get("dtype")
    shape = row.get("shape")
    place = row.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise ValueError(f"{shown(name)} has the unknown dtype {dtype!r:.40}")
    if not _whole(shape) or any(side >= MAX_SIDE for side in shape):
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
    if len(shape) > MAX_SIDES:
        raise ValueError(f"{shown(name)} has {len(shape)} sides")
    if not _whole(place) or len(place) != 2 or place[1] < place[0]:
        raise ValueError(f"{shown(name)} has the data_offsets {shown(place)}")
    if math.prod(shape) * ITEM_BITS[dtype] != (place[1] - place[0]) * 8:
        raise ValueError(f"{shown(name)} of shape {shape} does not fit its {counted(place[1] - place[0], 'byte')}")
    return dtype, tuple(shape), place[0], place[1]


def _whole(values: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0; True and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_cover(rows: dict[str, Row], size: int) -> None:
    at = 0
    for name, (_, _, start, end) in sorted(rows.items(), key=lambda item: item[1][2:]):
        if start < at:
            raise ValueError(f"{shown(name)} overlaps the tensor before it")
        if start > at:
            raise ValueError(f"no tensor has the {counted(start - at, 'byte')} before {shown(name)}")
        at = end
    if at < size:
        raise ValueError(f"it knows nothing of {counted(size - at, 'byte')} behind its last tensor")


def _plausible(start: bytes) -> bool:
    return len(start) == LENGTH_BYTES + 2 and start[LENGTH_BYTES:] in (b'{"', b"{}", b"{ ", b"{\n")


def _cut_short(path: Path, size: int, needed: int, what: str) -> UnreadableWeights:
    return UnreadableWeights(
        f"{path} is cut short: its {what} needs {counted(needed, 'byte')} and the file has {size:,}, "
        f"bytes {size:,} to {needed - 1:,} are missing ({needed - size:,} in all); download it again"
    )
