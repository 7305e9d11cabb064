"""torch's own attention: on every device, in every dtype, with gradients. The measure of the others."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "sdpa"
TOLERANCE = 0.0


def why_not() -> str | None:
    """Always there."""
    return None


def rejects(q: Tensor) -> str | None:
    """Takes everything."""
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(K)) v``.

    Args:
        q: ``[B, L, N, K]``.
        k: ``[B, S, N, K]``.
        v: ``[B, S, N, K]``.

    Returns:
        ``[B, L, N, K]``. The transposes are views; the kernels read strides, so nothing is copied.
    """
    out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)
