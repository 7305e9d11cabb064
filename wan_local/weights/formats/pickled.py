"""Reading ``.pth`` files of tensors, and of nothing else: a pickle that would run code is refused, not run."""

from __future__ import annotations

import pickle  # only for the name of its error: nothing is unpickled here
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UnreadableWeights
from ..source import DTYPES, Entry, reason, shown
from . import mistaken

SPELLING = {dtype: name for name, dtype in DTYPES.items() if dtype is not None}
MAGIC = b"PK\x03\x04"  # how a zip archive starts, and with it every checkpoint since torch 1.6
REFUSALS = ("GLOBAL", "Unsupported operand", "Can only create", "Can only build")  # torch's words for foreign code


def looks_like(path: Path) -> bool:
    """Whether the content is a torch checkpoint, whole or cut short: a zip archive. False if it can't be opened."""
    try:
        return _starts(path)
    except OSError:  # for the reader that is tried next to tell
        return False


def read_entries(path: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint, memory mapped.

    Raises:
        UnreadableWeights: not a checkpoint, or one that holds more than tensors.
    """
    _check_archive(path)
    try:
        state: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(word in str(error) for word in REFUSALS):
            told = str(error).rpartition("WeightsUnpickler error:")[2].partition("Check the documentation")[0]
            raise _unreadable(path, pickle.UnpicklingError(told)) from error
        raise UnreadableWeights(
            f"{path} holds more than tensors and was not opened, since it could run code; use a safetensors file"
        ) from error
    except Exception as error:  # torch's reader lets almost anything out on a broken file
        raise _unreadable(path, error) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # as trainers save it, beside counters
        state = state["state_dict"]
    if (
        not isinstance(state, dict)
        or not all(isinstance(value, Tensor) for value in state.values())
        or len({str(name) for name in state}) < len(state)
    ):
        raise UnreadableWeights(f"{path} is not a plain table of tensors; use the official file or a safetensors file")
    return {str(name): _entry(path, str(name), value) for name, value in state.items()}


def _check_archive(path: Path) -> None:
    """Raise unless it is a whole, uncompressed archive with a pickle in it."""
    try:
        if not _starts(path):
            with path.open("rb") as file:
                told = mistaken.told(file.read(mistaken.LOOKED_AT))
            raise UnreadableWeights(f"{path} {told or 'is not a torch checkpoint; download it again'}")
        if not zipfile.is_zipfile(path):  # the list of contents is at its end
            raise UnreadableWeights(f"{path} is a torch checkpoint, cut short; download it again")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except UnreadableWeights:
        raise
    except Exception as error:  # zipfile too
        raise _unreadable(path, error) from error
    if not any(member.filename.endswith("data.pkl") for member in members):
        raise UnreadableWeights(f"{path} is a zip archive without a torch checkpoint; name another file")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnreadableWeights(f"{path} is a compressed archive, which can't be mapped; download the original file")


def _starts(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _unreadable(path: Path, error: Exception) -> UnreadableWeights:
    if "unable to mmap" in str(error):
        remedy = "there is too little memory for it here, use a safetensors file of this model"
    elif isinstance(error, OSError) and error.strerror:
        return UnreadableWeights(f"{path} can't be read ({error.strerror}); check its permissions")
    else:
        remedy = "download it again"
    return UnreadableWeights(f"{path} can't be read ({reason(error)}); {remedy}")


def _entry(path: Path, name: str, value: Tensor) -> Entry:
    value = value.detach()
    plain = type(value) is Tensor and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.is_quantized or value.numel() * value.itemsize > value.untyped_storage().nbytes():
        raise UnreadableWeights(
            f"{path}: {shown(name)} is no plain tensor; use the official file or a safetensors file"
        )
    return Entry(shape=tuple(value.shape), dtype=SPELLING.get(value.dtype, str(value.dtype)), read=lambda: value)
