"""SageAttention (github.com/thu-ml/SageAttention): 8-bit attention, faster and a little wrong; no gradients.

On some GPUs some versions give noise or black frames, which is why the choice checks it before trusting it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError

NAME = "sage"
TOLERANCE = 8e-2  # 8-bit q, k (and p, v on newer GPUs); noise shows as 1 and more
HEAD_DIMS = (64, 96, 128)


@lru_cache(maxsize=1)
def kernel() -> tuple[Callable[..., Tensor] | None, str]:
    """The function to call, or None and why there is none. Imported once a process."""
    if not torch.cuda.is_available():
        return None, "it needs an NVIDIA GPU and torch sees none"
    try:
        return importlib.import_module("sageattention").sageattn, ""
    except Exception as error:  # a build for another torch or triton fails in many ways, not only ImportError
        return None, f"sageattention: {error}"


def why_not() -> str | None:
    """Why SageAttention can't run on this machine, or None."""
    function, reason = kernel()
    return None if function else reason


def rejects(q: Tensor, k: Tensor) -> str | None:
    """Why it can't take tensors like ``q``, or None."""
    if q.device.type != "cuda":
        return f"it runs on CUDA, not on {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 or bfloat16, not {q.dtype}"
    if q.shape[-1] not in HEAD_DIMS:
        return f"it takes head widths {HEAD_DIMS}, not {q.shape[-1]}"
    if q.requires_grad:
        return "it gives no gradients"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Approximate attention, all ``[B, L, N, K]`` fp16 or bf16."""
    function, reason = kernel()
    if function is None:
        raise InputError(f"attention={NAME!r} can't be used here: {reason}; use 'auto' or 'sdpa'")
    return function(q, k, v, tensor_layout="NHD", is_causal=False)
