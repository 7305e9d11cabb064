"""What the Wan-VAE's convolutions are calculated in: float32 without TF32 to encode, what is asked for to decode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class ExactConvolutions(contextlib.AbstractContextManager[None]):
    """A scope in which cuDNN multiplies float32 as float32, and not with the 10 bits of TF32, its default.

    The setting is the process's. So the first to come in turns it off and the last to leave puts it back as it was,
    from whatever threads; what other threads do meanwhile is more exact too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside, self._before = 0, True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _tf32()
                _set_tf32(False)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _set_tf32(self._before)


exact_convolutions = ExactConvolutions()
CUDNN: Any = torch.backends.cudnn


def _tf32() -> bool:
    try:
        return CUDNN.allow_tf32
    except RuntimeError:  # who uses torch's newer setting, one for each operation, can't be asked by the old one
        return CUDNN.conv.fp32_precision != "ieee"


def _set_tf32(on: bool) -> None:
    try:
        if CUDNN.allow_tf32 != on:
            CUDNN.allow_tf32 = on
    except RuntimeError:
        CUDNN.conv.fp32_precision = "tf32" if on else "ieee"


@contextlib.contextmanager
def calculating_in(dtype: torch.dtype, conv: Any, device: torch.device) -> Iterator[None]:
    """Convolutions of torch's own class calculate in ``dtype`` whatever their weights are kept in; a host's see to it
    themselves."""
    if type(conv) is not nn.Conv3d or conv.weight.dtype == dtype:
        yield
        return
    with torch.autocast(device.type, dtype):
        yield


def decode_dtype(device: torch.device) -> torch.dtype:
    """What to decode in where nobody says: bfloat16 on a GPU that calculates in it, else float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32
