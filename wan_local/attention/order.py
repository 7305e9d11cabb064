"""Which exact kernels to try on a device, best first.

Measured at 75,600 tokens of 40 heads of 128 in bfloat16 on an H100 (torch 2.11, cuDNN 9.19), in TFLOP/s: cuDNN 596,
FlashAttention 2 359, memory efficient 182. FlashAttention 3 has 620 to 650 there by what others published. On A100 and
A10 cuDNN is slower than FlashAttention 2; on Ada and newer consumer GPUs, and between cuDNN and FlashAttention 4, what
is published disagrees, so there they are timed once (``timing.py``).
"""

from __future__ import annotations

from typing import Any

import torch

from . import flash, sdpa
from .backend import Backend

SERVER = (9, 10)  # Hopper and its successor: cuDNN has kernels of their own for them
UNSETTLED = ((8, 9), (10, 0), (10, 3), (12, 0), (12, 1))  # compute capabilities on which the fastest is timed


def of_torch(device: torch.device) -> list[Backend]:
    """torch's own kernels for a device; torch's own choice where there is nothing to choose from."""
    if device.type != "cuda" or torch.version.hip is not None:
        return [sdpa]
    found = sdpa.capability(device)
    kernels: list[Backend] = [sdpa.FLASH, sdpa.EFFICIENT, sdpa.MATH] if found >= (8, 0) else [sdpa.EFFICIENT, sdpa.MATH]
    if sdpa.has_good_cudnn():
        if found[0] in SERVER:
            kernels.insert(0, sdpa.CUDNN)
        elif found in UNSETTLED:
            kernels.insert(1, sdpa.CUDNN)
    return kernels


def exact(device: torch.device, flash: Any = flash) -> list[Backend]:
    """Every exact kernel for a device. A package in ``flash`` that was built for this kind of GPU comes before torch's
    own; one that was not, where torch takes the same kernel."""
    kernels = of_torch(device)
    if flash.why_not() is None:
        best = kernels[0] is not sdpa.CUDNN or flash.version() > 2
        kernels.insert(0 if best else 1, flash)
    return kernels


def is_unsettled(device: torch.device) -> bool:
    """Whether the order there is to be found by timing."""
    return device.type == "cuda" and torch.version.hip is None and sdpa.capability(device) in UNSETTLED
