"""comfy-kitchen's int8 attention: 8-bit like SageAttention, with q and k turned first so that less sticks out.

Comes with recent ComfyUI; no gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import kitchen
from ..errors import InputError

NAME = "ck_int8"
TOLERANCE = 8e-2  # 1.4e-2 was published for it; noise shows as 1 and more
MAX_HEAD_DIM = 256


def why_not() -> str | None:
    """Why it can't run on this machine, or None."""
    module, reason = kitchen.package()
    if module is None:
        return reason
    if not hasattr(module, "int8_attention"):
        return "this version of comfy_kitchen has no int8 attention; update it"
    available = getattr(module, "int8_attention_is_available", None)
    return None if available is None or available() else "comfy_kitchen has no int8 attention for this GPU"


def rejects(q: Tensor, k: Tensor) -> str | None:
    """Why it can't take tensors like these, or None."""
    if q.device.type != "cuda":
        return f"it runs on CUDA, not on {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 or bfloat16, not {q.dtype}"
    if q.shape[-1] > MAX_HEAD_DIM:
        return f"it takes head widths up to {MAX_HEAD_DIM}, not {q.shape[-1]}"
    if q.requires_grad:
        return "it gives no gradients"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Approximate attention, all ``[B, L, N, K]`` fp16 or bf16."""
    function = kitchen.function("int8_attention")
    if function is None:
        raise InputError(f"attention={NAME!r} can't be used here: {why_not()}; use 'auto' or 'sdpa'")
    return function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
