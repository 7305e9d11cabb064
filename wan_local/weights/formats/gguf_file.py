"""Reading the GGUF format: header first, tensors memory mapped, packed ones left packed.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: "GGUF", version, number of tensors,
number of metadata entries, the metadata, then name, sides (innermost first), type and place of every tensor; the data
starts at the next multiple of the alignment. Nothing in the header is believed before it is compared with the file.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import UnreadableWeights
from ...quantised.ggml import GGML, packed_bytes
from ...words import counted
from ..source import Entry, reason, shown
from .mapped import MappedFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER = 100_000_000  # bytes
MAX_TENSORS = MAX_METADATA = 50_000  # real files have two thousand, and a hundred
MAX_STRINGS = 2_000_000  # in lists, all together; a vocabulary has 256,000, and its merges as many
MAX_SIDES = 8  # ggml knows four; files of Wan have a five-sided patch_embedding all the same
ALIGNMENT = 32  # unless the metadata says otherwise
STRING, ARRAY = 8, 9
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
ORIGINAL = "comfy.gguf.orig_shape."  # before a name: its sides in torch, where the file has others

PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
PLAIN_SIZE = {"F32": 4, "F16": 2, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F64": 8, "BF16": 2}
BLOCKS = {  # ggml's numbers of its block types
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


def looks_like(path: Path) -> bool:
    """Whether the file starts as a GGUF file does. False if it can't be opened."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # for the reader that is tried next to tell
        return False


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, object]]:
    """Entries and metadata of a file, without touching its tensors; long lists and strings in lists stay unread.

    Raises:
        UnreadableWeights: not a GGUF file, one that is cut short, or one whose header contradicts itself or the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            metadata, rows, base = _read(_Cursor(file, min(size, MAX_HEADER)))
        places = {name: _place(name, row, base, size) for name, row in rows.items()}
        _check_overlaps(places)
        shapes = {name: _shape(name, rows[name][0], metadata) for name in rows}
    except FileNotFoundError as error:
        raise UnreadableWeights(f"{path} is not there; check the path") from error
    except OSError as error:
        raise UnreadableWeights(f"{path} can't be read ({error.strerror}); check its permissions") from error
    except EOFError as error:
        raise UnreadableWeights(f"{path} is cut short ({reason(error)}); download it again") from error
    except (ValueError, ArithmeticError, MemoryError, struct.error) as error:
        raise UnreadableWeights(f"{path} has a broken header ({reason(error)}); download it again") from error
    mapped = MappedFile(path)
    return {name: _entry(mapped, name, rows[name][1], shapes[name], *places[name]) for name in rows}, metadata


Row = tuple[tuple[int, ...], int, int]  # sides as in torch, ggml's type, place behind the start of the data


@dataclass(frozen=True, slots=True)
class StoredList:
    """A list in the metadata that is left in the file until somebody wants it; a vocabulary has 256,000 strings.

    Attributes:
        path: of the file.
        kind: GGUF's number of the type of its values.
        count: how many they are.
        start, end: first byte in the file and the byte behind the last.
    """

    path: Path
    kind: int
    count: int
    start: int
    end: int

    def read(self) -> list[object]:
        """The values.

        Raises:
            UnreadableWeights: the file changed since.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.end - self.start)
            if self.kind != STRING:
                return list(struct.unpack(f"<{self.count}{NUMBERS[self.kind][1:]}", data))
            found: list[object] = []
            at = 0
            for _ in range(self.count):
                (length,) = struct.unpack_from("<Q", data, at)
                found.append(data[at + 8 : at + 8 + length].decode("utf-8"))
                at += 8 + length
            return found
        except (OSError, ValueError, struct.error) as error:
            raise UnreadableWeights(
                f"{self.path} has a list in its header that can't be read ({reason(error)}); download it again"
            ) from error


class _Cursor:
    """Reads on from where it is, and never past what may be the header."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self._strings = 0

    @property
    def at(self) -> int:
        return self._file.tell()

    def take(self, count: int) -> bytes:
        self.check(count)
        found = self._file.read(count)
        if len(found) != count:
            raise EOFError(f"its header ends at byte {self.at:,}")
        return found

    def check(self, count: int) -> None:
        if count > self._limit - self.at:
            raise EOFError(
                f"its header needs {counted(count, 'byte')} at byte {self.at:,}, and the file has {self._limit:,}"
            )

    def skip(self, count: int) -> None:
        self.check(count)
        self._file.seek(count, os.SEEK_CUR)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8")

    def value(self) -> object:
        kind = self.number("<I")
        if kind != ARRAY:
            return self._plain(kind)
        kind, count = self.number("<I"), self.number("<Q")
        if kind == STRING or (kind in NUMBERS and count > 16):
            start = self.at
            if kind == STRING:
                self._skip_strings(count)
            else:
                self.skip(count * struct.calcsize(NUMBERS[kind]))
            return StoredList(Path(self._file.name), kind, count, start, self.at)
        self.check(count)  # every value takes a byte at least
        return [self._plain(kind) for _ in range(count)]

    def _skip_strings(self, count: int) -> None:
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise ValueError(f"it lists {self._strings:,} strings before byte {self.at:,}, more than {MAX_STRINGS:,}")
        file, at = self._file, self.at  # counted here: asking the file every time takes longer than all the rest
        for _ in range(count):
            length = int.from_bytes(file.read(8), "little")
            at += 8 + length
            if at > self._limit:
                raise EOFError(f"its header needs {counted(at, 'byte')}, and the file has {self._limit:,}")
            if length:
                file.seek(at)

    def _plain(self, kind: int) -> object:
        if kind == STRING:
            return self.text()
        if kind not in NUMBERS:
            raise ValueError(f"it has a value of the unknown type {kind} before byte {self.at:,}")
        return self.number(NUMBERS[kind])


def _read(cursor: _Cursor) -> tuple[dict[str, object], dict[str, Row], int]:
    """Metadata, rows by name, and where the data starts."""
    cursor.take(len(MAGIC))
    version = cursor.number("<I")
    if version not in VERSIONS:
        swapped = struct.unpack(">I", struct.pack("<I", version))[0]
        told = "big-endian" if swapped in VERSIONS else f"version {version}"
        raise ValueError(f"it is {told}; versions {' and '.join(map(str, VERSIONS))}, little-endian, can be read")
    tensors, entries = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or entries > MAX_METADATA:
        raise ValueError(f"it says that it has {counted(tensors, 'tensor')} and {entries:,} other entries")
    metadata: dict[str, object] = {}
    for _ in range(entries):
        key = cursor.text()
        if key in metadata:
            raise ValueError(f"{shown(key)} stands there twice")
        metadata[key] = cursor.value()
    rows: dict[str, Row] = {}
    for _ in range(tensors):
        name, sides = cursor.text(), cursor.number("<I")
        if name in rows:
            raise ValueError(f"{shown(name)} stands there twice")
        if sides > MAX_SIDES:
            raise ValueError(f"{shown(name)} has {sides} sides")
        shape = tuple(cursor.number("<Q") for _ in range(sides))
        rows[name] = (shape[::-1], cursor.number("<I"), cursor.number("<Q"))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"general.alignment is {shown(alignment)}")
    return metadata, rows, -(-cursor.at // alignment) * alignment


def _place(name: str, row: Row, base: int, size: int) -> tuple[int, int]:
    """First byte in the file and the byte behind the last."""
    shape, kind, offset = row
    if kind in PLAIN:
        length = math.prod(shape) * PLAIN_SIZE[PLAIN[kind]]
    elif kind in BLOCKS:
        length = packed_bytes(BLOCKS[kind], shape)
    else:
        raise ValueError(f"{shown(name)} has the unknown type {kind}")
    start = base + offset
    if start + length > size:
        raise EOFError(f"{shown(name)} ends at byte {start + length:,}, and {size:,} are there")
    return start, start + length


def _check_overlaps(places: dict[str, tuple[int, int]]) -> None:
    end = 0
    for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
        if start < end and stop > start:
            raise ValueError(f"{shown(name)} overlaps the tensor before it")
        end = max(end, stop)


def _shape(name: str, shape: tuple[int, ...], metadata: dict[str, object]) -> tuple[int, ...]:
    original = metadata.get(ORIGINAL + name)
    if original is None:
        return shape
    if not isinstance(original, list) or not all(type(side) is int and side >= 0 for side in original):
        raise ValueError(f"the shape of {shown(name)} before packing is {shown(original)}")
    if math.prod(original) != math.prod(shape):
        raise ValueError(f"{shown(name)} has {math.prod(shape):,} values, and {original} before packing")
    return tuple(original)


def _entry(file: MappedFile, name: str, kind: int, shape: tuple[int, ...], start: int, end: int) -> Entry:
    if kind in PLAIN:
        dtype = PLAIN[kind]
        return Entry(
            shape=shape,
            dtype=dtype,
            read=lambda: file.read(name, dtype, shape, start, end),
            release=lambda first, last: file.release(start + first, start + last),
        )
    dtype = BLOCKS[kind]
    rows = math.prod(shape[:-1])
    return Entry(
        shape=shape,
        dtype=dtype,
        read=lambda: file.read(name, "U8", (rows, (end - start) // rows if rows else 0), start, end),
        release=lambda first, last: file.release(start + first, start + last),
        packing=GGML(shape=shape, kind=dtype),
    )
