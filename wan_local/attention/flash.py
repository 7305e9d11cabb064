"""FlashAttention (github.com/Dao-AILab/flash-attention): the version made for this GPU where installed, else version 2.

All keep our layout ``[B, L, N, K]``, so nothing is transposed. Imported when asked for, never at import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError

NAME = "flash"
TOLERANCE = 1e-2  # bfloat16 rounding of the result alone is about 2e-3
MAX_HEAD_DIM = 256
# version, module, first and last compute capability (major) it has kernels for
VERSIONS = ((4, "flash_attn.cute", 10, 10), (3, "flash_attn_interface", 9, 9), (2, "flash_attn", 8, 99))


@lru_cache(maxsize=1)
def kernel() -> tuple[Callable[..., Tensor | tuple[Tensor, Tensor]] | None, str, int]:
    """The function to call, or None, why there is none, and the version. Imported once a process."""
    if not torch.cuda.is_available():
        return None, "it needs an NVIDIA GPU and torch sees none", 0
    major = torch.cuda.get_device_capability()[0]
    reasons = []
    for number, module, first, last in VERSIONS:
        if not first <= major <= last:
            reasons.append(f"{module} has no kernels for compute capability {major}.x")
            continue
        try:
            return importlib.import_module(module).flash_attn_func, "", number
        except Exception as error:  # a build for another torch fails in many ways, not only ImportError
            reasons.append(f"{module}: {error}")
    return None, "; ".join(reasons), 0


def why_not() -> str | None:
    """Why FlashAttention can't run on this machine, or None."""
    function, reason, _ = kernel()
    return None if function else reason


def version() -> int:
    """Which of its versions is used here; 0 for none."""
    return kernel()[2]


def rejects(q: Tensor, k: Tensor) -> str | None:
    """Why it can't take tensors like ``q``, or None."""
    if q.device.type != "cuda":
        return f"it runs on CUDA, not on {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 or bfloat16, not {q.dtype}"
    if q.shape[-1] > MAX_HEAD_DIM or q.shape[-1] % 8:
        return f"it takes head widths up to {MAX_HEAD_DIM} in steps of 8, not {q.shape[-1]}"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Exact attention, all ``[B, L, N, K]`` fp16 or bf16; gradients included."""
    function, reason, _ = kernel()
    if function is None:
        raise InputError(f"attention={NAME!r} can't be used here: {reason}; use 'auto' or 'sdpa'")
    out = function(q, k, v)
    return out[0] if isinstance(out, tuple) else out  # some versions give the log-sum-exp along
