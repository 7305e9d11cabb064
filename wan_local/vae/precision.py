"""What the Wan-VAE's convolutions are calculated in: float32 without TF32 to encode, what is asked for to decode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


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
