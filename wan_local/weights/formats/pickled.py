"""Reading ``.pth`` files of tensors, and of nothing else: a pickle that would run code is refused, not run."""

from __future__ import annotations

import pickle  # only for the name of its error: nothing is unpickled here
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UnreadableWeights
from ..source import DTYPES, Entry

SPELLING = {dtype: name for name, dtype in DTYPES.items() if dtype is not None}


def looks_like(path: Path) -> bool:
    """Whether the content is a torch checkpoint: a zip archive with a ``data.pkl``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def read_entries(path: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint, memory mapped.

    Raises:
        UnreadableWeights: not a checkpoint, or one that holds more than tensors.
    """
    if not looks_like(path):
        raise UnreadableWeights(f"{path} is not a torch checkpoint, or is cut short; download it again")
    try:
        state: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnreadableWeights(
            f"{path} holds more than tensors and was not opened, since it could run code; use a safetensors file"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise UnreadableWeights(
            f"{path} can't be read ({' '.join(str(error).split())[:160]}); download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UnreadableWeights(f"{path} is not a plain table of tensors; use the official file or a safetensors file")
    return {str(name): _entry(value) for name, value in state.items()}


def _entry(value: Tensor) -> Entry:
    return Entry(shape=tuple(value.shape), dtype=SPELLING.get(value.dtype, str(value.dtype)), read=lambda: value)
