"""Tensors in files, seen but not read: names, shapes and dtypes now, values one at a time later."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType

import torch
from torch import Tensor

from ..errors import ParameterMismatch, WeightsError
from ..quantised import Packing

# What safetensors calls its dtypes. Those mapped to None can't be computed with as they are.
DTYPES: Mapping[str, torch.dtype | None] = {
    "F8_E8M0": torch.uint8,  # exponents, for which torch has a dtype from 2.7 on only
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "U64": None, "U32": None, "U16": None, "F4": None,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
MAX_SHOWN = 100  # characters of a name in a message
NAMES_SHOWN = 3


def _nothing(start: int, end: int) -> None:
    """What there is to release of a tensor that is not mapped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One tensor in a file.

    Attributes:
        shape: its sizes; of a packed one those of what it stands for.
        dtype: as stored, in safetensors' spelling ("F16") or ggml's ("Q4_K").
        read: gives the tensor, memory mapped where the format can; the packed bytes of a packed one.
        release: gives memory back of a mapped tensor, from one of its bytes to before another, that was copied; it can
            be read again.
        packing: how to dequantize it; None for plain numbers.
        scale: gives the scales that belong to a packed one, as its packing has them; None if it has none.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]
    release: Callable[[int, int], None] = _nothing
    packing: Packing | None = None
    scale: Callable[[], Tensor] | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes as stored."""
        if self.packing is not None:
            return self.packing.bytes
        dtype = DTYPES.get(self.dtype)
        return self.size * (1 if dtype is None else dtype.itemsize)

    def loaded(self, dtype: torch.dtype | None) -> tuple[int, bool]:
        """Bytes of its numbers in ``dtype``, and whether that is not what is stored, so that memory is taken for them.

        What is no floating point number is kept as it is; None keeps the others too, and dequantizes to float32.
        """
        if self.packing is None and (dtype is None or self.dtype not in FLOATS):
            return self.bytes, False
        return self.size * (dtype or torch.float32).itemsize, DTYPES.get(self.dtype) != dtype

    def numbers(self, stored: Tensor, dtype: torch.dtype | None) -> Tensor:
        """What :meth:`read` gave, as numbers in ``dtype``; None keeps what is stored, and dequantizes to float32."""
        if self.packing is not None:
            return self.packing.dequantize(stored, self.scale() if self.scale else None, dtype or torch.float32)
        return stored.to(dtype) if dtype is not None and stored.is_floating_point() else stored

    def viewed(self, shape: tuple[int, ...], view: Callable[[Tensor], Tensor]) -> Entry:
        """A part of the tensor, or the same numbers in another shape; of a packed one dequantized to float32."""
        if self.packing is None:
            return replace(self, shape=shape, read=lambda: view(self.read()), release=_nothing)
        return replace(
            self,
            shape=shape,
            dtype="F32",
            packing=None,
            scale=None,
            release=_nothing,
            read=lambda: view(self.numbers(self.read(), torch.float32)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSource:
    """An opened weight file or folder.

    Attributes:
        format: name of the format it was recognised as.
        path: what was opened, for messages.
        entries: every tensor by the name it has in the file.
        config: what lies beside the weights as ``config.json``, or an empty dict.
        metadata: what a single file says of itself, or an empty dict.
        extra: names of tensors that lie in the same file and are no part of what was asked for.
    """

    format: str
    path: str
    entries: Mapping[str, Entry]
    config: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether some of it is packed."""
        return any(entry.packing is not None for entry in self.entries.values())

    def renamed(self, rename: Callable[[str], str]) -> TensorSource:
        """The same tensors under other names.

        Raises:
            ParameterMismatch: two of them would get one name.
        """
        return self.rebuilt((name, rename(name), entry) for name, entry in self.entries.items())

    def only(self, belongs: Callable[[str], bool]) -> TensorSource:
        """The tensors whose names belong; the names of the others go to ``extra``."""
        kept = {name: entry for name, entry in self.entries.items() if belongs(name)}
        return replace(self, entries=kept, extra=(*self.extra, *(n for n in self.entries if n not in kept)))

    def rebuilt(self, rows: Iterable[tuple[str, str, Entry]]) -> TensorSource:
        """Other tensors out of these: (name in the file, new name, tensor) each; raises as :meth:`renamed`."""
        entries: dict[str, Entry] = {}
        origin: dict[str, str] = {}
        for old, new, entry in rows:
            if new in entries:
                raise same_parameter(self.path, origin[new], old)
            entries[new], origin[new] = entry, old
        return replace(self, entries=entries)


def same_parameter(path: str, first: str, second: str) -> ParameterMismatch:
    """The error for two tensors that are the same parameter, so that nobody knows which is meant."""
    return ParameterMismatch(
        f"{path} holds {shown(first)} and {shown(second)}, which are the same parameter; use a file with one of them",
        unexpected=(second,),
    )


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


def imported(package: str, path: str) -> ModuleType:
    """A package, late: transformers takes as long as half of torch, and ranks load no encoder.

    Raises:
        WeightsError: what lies at ``path`` needs it, and it can't be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise not_importable(path, package, error) from error


def not_importable(path: str, package: str, error: ImportError) -> WeightsError:
    """The error for a package that is missing, or broken, often through another one: nothing is wrong with the file."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return WeightsError(f"{path} needs {package}, which is not installed; bring it with `pip install {package}`")
    first: BaseException = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
    told = reason(error) if first is error else f"{reason(error)}: {reason(first)}"
    if not getattr(sys.modules.get(package), "is_torch_available", lambda: True)():
        return WeightsError(
            f"{path} needs {package}, and the one that is installed does not work with torch {torch.__version__}; "
            "bring a newer torch, or `pip install 'transformers<5'`, which takes torch from 2.5"
        )
    return WeightsError(
        f"{path} needs {package}, which is installed and can't be imported ({told}); repair it, such as with "
        f"`pip install --upgrade --force-reinstall {package}`, or bring torchvision to the version that fits torch"
    )


def reason(error: BaseException) -> str:
    """What another library's error says, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in f"{error}").split())
    return text[:160] or type(error).__name__
