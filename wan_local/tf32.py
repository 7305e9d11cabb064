"""Convolutions in float32 that are float32: cuDNN multiplies with the 10 bits of TF32 unless told not to."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import torch


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
                self._before = enabled()
                _set_tf32(False)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _set_tf32(self._before)


exact_convolutions = ExactConvolutions()
CUDNN: Any = torch.backends.cudnn


def enabled() -> bool:
    """Whether convolutions in float32 may be multiplied in TF32."""
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
