"""Where a run starts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..shapes import Grid

MAX_SEED = 2**64 - 1


def initial_noise(grid: Grid, channels: int, seed: int, batch: int = 1) -> Tensor:
    """Normal noise ``[B, C, T, h, w]`` float32 on the CPU, the same on every machine for the same seed.

    The official code draws on the GPU, so its seeds give other clips than ours; ComfyUI draws on the CPU.

    Raises:
        InputError: the seed is not a whole number in 0..2**64-1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed={seed!r} can't be used; give a whole number from 0 to {MAX_SEED}")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(batch, channels, *grid.latent_shape, generator=generator, dtype=torch.float32)
