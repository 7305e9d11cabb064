"""torch's own attention: on every device, in every dtype, with gradients. The measure of the others."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "sdpa"
TOLERANCE = 0.0


def why_not() -> str | None:
    return None


def rejects(q: Tensor) -> str | None:
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(K)) v``, all ``[B, L, N, K]``; transposes are views, the kernels read strides."""
    out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)  # [B, L, N, K]
