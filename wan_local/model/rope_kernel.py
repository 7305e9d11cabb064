"""The rotation as one kernel that works in place: comfy-kitchen's, which ComfyUI brings, where it has one for this GPU.

A queries' tensor is then read and written once in its own dtype; torch's way makes two float32 copies of it. Optional:
no version is assumed, and what it gives is compared once with ours before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .. import kitchen
from .rope import apply_rope, rope_table

NAME = "apply_rope1_"
HALF = (torch.bfloat16, torch.float16)
ALLOWED = 1e-2  # relative L2; rounding to bfloat16 alone is 1.7e-3
SAMPLE = (2, 3, 4)  # tokens along time, height and width

log = logging.getLogger("wan_local.model")


def rope_kernel(x: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """``turn(x, table)`` for tensors like ``x``, ``[B, L, N, K]``, or None where torch does it.

    ``turn`` overwrites what it is given and returns it; ``table`` is :func:`.rope.rope_table`.
    """
    if torch.compiler.is_compiling() or x.device.type != "cuda" or x.dtype not in HALF or torch.is_grad_enabled():
        return None
    return turn if agrees(x.device, x.dtype, x.shape[-1]) else None


def turn(x: Tensor, table: Tensor) -> Tensor:
    """``[B, L, N, K]`` in half precision, overwritten, by ``[L, 1, K / 2]`` complex64."""
    cosine, sine = table.real, table.imag
    matrices = torch.stack((cosine, -sine, sine, cosine), dim=-1).unflatten(-1, (2, 2))  # [L, 1, K / 2, 2, 2]
    kernel = kitchen.function(NAME)
    assert kernel is not None  # asked before, in agrees()
    return kernel(x, matrices.unsqueeze(0))


@lru_cache(maxsize=16)
def agrees(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether that kernel is there and turns a small sample as :func:`.rope.apply_rope` does."""
    if kitchen.function(NAME) is None:
        return False
    table = rope_table(SAMPLE, head_dim, device)
    noise = torch.randn(1, len(table), 2, head_dim, generator=torch.Generator().manual_seed(0))
    x = noise.to(device, dtype)
    expected = apply_rope(x, table)
    try:
        error = ((turn(x, table).float() - expected).norm() / expected.norm()).item()
    except Exception as failure:  # whatever a foreign kernel raises means the same: do not use it
        log.warning("comfy-kitchen's rotation is not used: %s", failure)
        return False
    if not error <= ALLOWED:
        log.warning("comfy-kitchen's rotation is not used: it is off by %.2g (%.2g allowed)", error, ALLOWED)
    return error <= ALLOWED
