"""Reading the safetensors format with checks that speak: header first, tensors memory mapped, one at a time.

Layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header with the dtype,
shape and byte range of every tensor, then the data.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import UnreadableWeights
from ..source import Entry

MAX_HEADER = 100_000_000  # bytes; the safetensors library's own limit
LENGTH_BYTES = 8
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


def looks_like(path: Path) -> bool:
    """Whether the first bytes could be a safetensors header."""
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES + 2)
    return len(start) == LENGTH_BYTES + 2 and start[LENGTH_BYTES:] in (b'{"', b"{}", b"{ ", b"{\n")


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries and metadata of a file, without touching its tensors.

    Raises:
        UnreadableWeights: not a safetensors file, or one that is cut short, with what is missing.
    """
    size = _size(path)
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == LENGTH_BYTES else 0
        if not looks_like(path) or length > MAX_HEADER:
            raise UnreadableWeights(
                f"{path} is not a safetensors file (it starts with {start!r} and is {size:,} bytes long); "
                "download it again, or name another file"
            )
        if LENGTH_BYTES + length > size:
            raise _cut_short(path, size, LENGTH_BYTES + length, "header")
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = header.pop("__metadata__", None) or {}
        opened = OpenFile(path)
        entries = {name: _entry(opened, name, row) for name, row in header.items()}
        end = max((row["data_offsets"][1] for row in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UnreadableWeights(f"{path} has a broken header ({_short(error)}); download it again") from error
    if LENGTH_BYTES + length + end > size:
        raise _cut_short(path, size, LENGTH_BYTES + length + end, "data")
    return entries, {str(name): str(value) for name, value in metadata.items()}


def _entry(opened: OpenFile, name: str, row: dict[str, Any]) -> Entry:
    shape, (start, end) = tuple(int(side) for side in row["shape"]), row["data_offsets"]
    item = ITEM_BYTES.get(row["dtype"])
    if item is not None and (math.prod(shape) * item != end - start or start < 0 or any(side < 0 for side in shape)):
        raise ValueError(f"{name} of shape {list(shape)} does not fit its {end - start} bytes")
    return Entry(shape=shape, dtype=row["dtype"], read=lambda: opened.read(name))


class OpenFile:
    """A file that is mapped once, at its first tensor, and shared by all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def read(self, name: str) -> Tensor:
        """One tensor, memory mapped."""
        try:
            if self._file is None:
                self._file = safe_open(self._path, framework="pt")
            return self._file.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: no room to map the file
            raise UnreadableWeights(
                f"{self._path}: {name} can't be read ({_short(error)}); download it again"
            ) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise UnreadableWeights(f"{path} is not there; check the path") from error
    except OSError as error:
        raise UnreadableWeights(f"{path} can't be read ({error.strerror})") from error


def _cut_short(path: Path, size: int, needed: int, what: str) -> UnreadableWeights:
    return UnreadableWeights(
        f"{path} is cut short: its {what} needs {needed:,} bytes and {size:,} are there, "
        f"bytes {size:,} to {needed - 1:,} are missing ({needed - size:,} in all); download it again"
    )


def _short(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:160] or type(error).__name__
