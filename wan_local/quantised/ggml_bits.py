"""Bytes of packed blocks to the whole numbers in them, the same for every block."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(two: Tensor) -> Tensor:
    """Two bytes each to float32, ``[n, 1]``."""
    return two.contiguous().view(torch.float16).float()


def words(packed: Tensor) -> Tensor:
    """``[n, 2 m]`` bytes to ``[n, m]`` whole numbers from 0 to 65,535."""
    return packed.contiguous().view(torch.int16).int() & 0xFFFF


def long_words(packed: Tensor) -> Tensor:
    """``[n, 4 m]`` bytes to ``[n, m]``, of which only single bits may be looked at: the highest is a sign."""
    return packed.contiguous().view(torch.int32)


def both_halves(packed: Tensor) -> Tensor:
    """``[n, m]`` bytes to ``[n, 2 m]`` numbers of 4 bits as float32, the lower first."""
    return torch.stack([packed & 15, packed >> 4], dim=2).flatten(1).float()


def spread(packed: Tensor, count: int, width: int) -> Tensor:
    """``[n, m]`` to ``[n, count m]`` numbers of ``width`` bits, the lowest first; int32."""
    shifts = torch.arange(0, count * width, width, dtype=packed.dtype, device=packed.device)
    return ((packed[..., None] >> shifts) & ((1 << width) - 1)).flatten(1).int()
