"""Tensors in files, seen but not read: names, shapes and dtypes now, values one at a time later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterMismatch

# What safetensors calls its dtypes. Those mapped to None can't be computed with as they are.
DTYPES: Mapping[str, torch.dtype | None] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "U64": None, "U32": None, "U16": None, "F8_E8M0": None, "F4": None,
}  # fmt: skip
MAX_SHOWN = 100  # characters of a name in a message
NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One tensor in a file.

    Attributes:
        shape: its sizes.
        dtype: as stored, in safetensors' spelling ("F16").
        read: gives the tensor, memory mapped where the format can.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSource:
    """An opened weight file or folder.

    Attributes:
        format: name of the format it was recognised as.
        path: what was opened, for messages.
        entries: every tensor by the name it has in the file.
        config: what lies beside the weights as ``config.json``, or an empty dict.
    """

    format: str
    path: str
    entries: Mapping[str, Entry]
    config: Mapping[str, Any] = field(default_factory=dict)

    def renamed(self, rename: Callable[[str], str]) -> TensorSource:
        """The same tensors under other names.

        Raises:
            ParameterMismatch: two of them would get one name.
        """
        return self.rebuilt((name, rename(name), entry) for name, entry in self.entries.items())

    def rebuilt(self, rows: Iterable[tuple[str, str, Entry]]) -> TensorSource:
        """Other tensors out of these: (name in the file, new name, tensor) each; raises as :meth:`renamed`."""
        entries: dict[str, Entry] = {}
        origin: dict[str, str] = {}
        for old, new, entry in rows:
            if new in entries:
                raise ParameterMismatch(
                    f"{self.path} holds {shown(origin[new])} and {shown(old)}, which are the same parameter; "
                    "use a file with one of them",
                    unexpected=(old,),
                )
            entries[new], origin[new] = entry, old
        return replace(self, entries=entries)


def shown(value: object) -> str:
    """A name or value from a file as part of a one-line message: escaped where it is not plain, and not endless."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "..."
    return text if text.isprintable() and text else repr(text)


def listed(names: Iterable[str]) -> str:
    """The first few names, and dots if there are more."""
    names = list(names)
    return ", ".join(map(shown, names[:NAMES_SHOWN])) + (", ..." if len(names) > NAMES_SHOWN else "")


def reason(error: BaseException) -> str:
    """What another library's error says, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in f"{error}").split())
    return text[:160] or type(error).__name__
