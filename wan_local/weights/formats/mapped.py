"""A weight file mapped into memory: its tensors are views of the file, read from disk when they are touched.

On Linux the map is private (writing to a tensor never reaches the file) and reserves nothing, so a file larger than
memory and swap opens too; the safetensors library's own map is counted as memory by the kernel and refused there.
Elsewhere that library reads its own format, and other formats are mapped as Python does it, privately too.
"""

from __future__ import annotations

import mmap
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ...errors import UnreadableWeights
from ...words import counted
from ..source import DTYPES, reason, shown

NORESERVE = 0x4000  # MAP_NORESERVE of linux/asm-generic/mman.h; Python's mmap names it only from 3.13 on
GENERIC = ("x86_64", "aarch64", "riscv64", "loongarch64")  # processors whose Linux uses the generic numbers


def can_map() -> bool:
    """Whether the flag above means here what it must."""
    return sys.platform == "linux" and platform.machine() in GENERIC


class MappedFile:
    """A file that is mapped once, at its first tensor, and shared by all of them. The tensors keep the map alive.

    Args:
        path: of the file.
        safetensors: whether it is one of the safetensors library's, which then reads it where our map is none.
    """

    def __init__(self, path: Path, *, safetensors: bool = False) -> None:
        self._path, self._safetensors = path, safetensors
        self._map: Any = None
        self._library: Any = None

    def read(self, name: str, dtype: str, shape: tuple[int, ...], start: int, end: int) -> Tensor:
        """The tensor in bytes ``start`` to ``end`` of the file, as safetensors spells its dtype.

        Raises:
            UnreadableWeights: the file changed since, there is no memory for it, or torch has no such dtype.
        """
        try:
            if self._safetensors and not can_map():
                found = self._by_library(name)
                return found if dtype != "F8_E8M0" else found.view(torch.uint8)
            kind = DTYPES[dtype]
            if kind is None:
                raise TypeError(f"torch can't calculate with {dtype}")
            return self._bytes(start, end, kind.itemsize).view(kind).reshape(shape)
        except MemoryError as error:
            raise UnreadableWeights(
                f"{self._path}: there is no memory for {shown(name)} ({counted(end - start, 'byte')}); free some"
            ) from error
        except Exception as error:  # the library, the kernel and torch each have their own
            raise UnreadableWeights(
                f"{self._path}: {shown(name)} can't be read ({reason(error)}); download it again"
            ) from error

    def release(self, start: int, end: int) -> None:
        """Give the memory of some bytes back to the system, which reads them again if they are touched again.

        Only for bytes nobody wrote to. Whole pages only, so the neighbours keep theirs.
        """
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map and first < last and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _bytes(self, start: int, end: int, item: int) -> Tensor:
        if start == end:
            return torch.empty(0, dtype=torch.uint8)
        if self._map is None:
            self._map = _map(self._path) or False
        if self._map is False:
            return _read(self._path, start, end)
        if len(self._map) < end:
            raise EOFError("the file became shorter")
        flat = torch.frombuffer(self._map, dtype=torch.uint8, count=end - start, offset=start)
        return flat.clone() if start % item else flat  # a map starts at a page; torch wants whole items behind it

    def _by_library(self, name: str) -> Tensor:
        if self._library is None:
            self._library = safe_open(self._path, framework="pt")
        return self._library.get_tensor(name)


def _map(path: Path) -> mmap.mmap | None:
    """The whole file, or None where the kernel refuses: under strict overcommit, or on a file system without maps."""
    with path.open("rb") as file:
        try:
            if not can_map():
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            flags, protection = mmap.MAP_PRIVATE | NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)
        except OSError:
            return None


def _read(path: Path, start: int, end: int) -> Tensor:
    """A copy of some bytes."""
    data = np.fromfile(path, np.uint8, count=end - start, offset=start)
    if len(data) != end - start:
        raise EOFError("the file became shorter")
    return torch.from_numpy(data)
