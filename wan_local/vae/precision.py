"""What the Wan-VAE's convolutions are calculated in: float32 without TF32 to encode, what is asked for to decode."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


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


def in_float32(network: Network) -> Network:
    """``network`` itself if all its weights are float32, else a float32 copy for the time of an encode (the released
    VAE's takes 0.5 GB)."""
    if all(parameter.dtype == torch.float32 for parameter in network.parameters()):
        return network
    return copy.deepcopy(network).float()
