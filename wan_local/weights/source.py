"""Tensors in files, seen but not read: names, shapes and dtypes now, values one at a time later."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# What safetensors calls its dtypes. Those mapped to None can't be computed with as they are.
DTYPES: Mapping[str, torch.dtype | None] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "U64": None, "U32": None, "U16": None, "F8_E8M0": None, "F4": None,
}  # fmt: skip


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
        """The same tensors under other names."""
        entries = {rename(name): entry for name, entry in self.entries.items()}
        return TensorSource(format=self.format, path=self.path, entries=entries, config=self.config)
