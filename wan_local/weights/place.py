"""One tensor from its file to where it is used, a piece at a time, so that file and copy are never both in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import huge_pages
from .source import Entry

PIECE = 64 << 20  # bytes of the file that go to a device at once
CACHED = 1 << 20  # those whose dtype is changed at once on a CPU: its cache holds them
HALF = (torch.float16, torch.bfloat16)
Came = Callable[[int], None]


def unwatched(came: int) -> None:
    """What is told of each piece where nobody listens."""


def place(entry: Entry, dtype: torch.dtype | None, device: torch.device | str, came: Came = unwatched) -> Tensor:
    """The tensor as numbers on ``device``; what needs no change stays mapped.

    Args:
        entry: of a file.
        dtype: None keeps what is stored, and dequantizes packed ones to float32.
        device: where it goes.
        came: called with the bytes of every piece that is there; what it raises ends the copy.
    """
    stored = entry.read()
    if entry.packing is not None:
        numbers = entry.numbers(stored, dtype).to(device)
        entry.release(0, stored.nbytes)
        came(stored.nbytes)
        return numbers
    wanted = dtype if dtype is not None and stored.is_floating_point() else stored.dtype
    return copied(entry, stored, wanted, torch.device(device), came)


def place_packed(entry: Entry, device: torch.device | str, came: Came = unwatched) -> Tensor:
    """The packed bytes on ``device``; on the CPU they stay mapped."""
    stored = entry.read()
    return copied(entry, stored, stored.dtype, torch.device(device), came)


def copied(entry: Entry, stored: Tensor, dtype: torch.dtype, device: torch.device, came: Came = unwatched) -> Tensor:
    """``stored`` itself if it is all it has to be, else a copy made piece by piece, whose pages are given back."""
    if stored.dtype == dtype and stored.device == device:
        came(stored.nbytes)
        return stored
    if stored.ndim == 0 or stored.numel() == 0:
        came(stored.nbytes)
        return stored.to(device=device, dtype=dtype)
    result = huge_pages.empty(stored.shape, dtype, device)
    row = stored.nbytes // len(stored)
    step = max(1, (CACHED if device.type == "cpu" else PIECE) // max(1, row))
    for start in range(0, len(stored), step):
        end = min(start + step, len(stored))
        # As it is stored to the device, and there to the dtype: torch would change it on the CPU and then copy.
        piece = stored[start:end].to(device)
        if device.type == "cpu" and stored.dtype in HALF and dtype in HALF:
            piece = piece.float()  # torch has vector instructions for either half only from and to float32: 5 times
        result[start:end].copy_(piece)
        entry.release(start * row, end * row)
        came((end - start) * row)
    return result
