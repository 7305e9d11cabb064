"""What is done to each token by itself, done over pieces of them and in place, so that little lies about meanwhile.

A float32 copy of the tokens of 81 frames at 1280x720 is 1.5 GB and the inside of the feed-forward network 2.1 GB; a
piece is a tenth of that. The numbers do not change: each row is calculated from the same row. Products stay whole:
their weights may come from far, or be dequantized for each call.

Where gradients are wanted nothing is cut or overwritten: autograd keeps what it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

MOST = 4096
"""Tokens of a piece at most."""

WHOLE = slice(None)


def pieces(length: int) -> Iterator[slice]:
    """Slices of about equal size, none longer than :data:`MOST`; a single one where gradients are wanted, and in a
    graph that is being compiled, which makes no copies of what it fuses."""
    count = -(-length // MOST)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or count <= 1:
        yield WHOLE
        return
    step = -(-length // count)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def by_pieces(
    x: Tensor, change: Callable[[Tensor, slice], Tensor], dtype: torch.dtype, *, in_place: bool = False
) -> Tensor:
    """``change(x[:, piece], piece)`` for every piece, put together.

    Args:
        x: ``[B, L, D]``.
        change: keeps the shape; may give another dtype.
        dtype: of the result.
        in_place: whether ``x``, of that dtype then, may be written over.

    Returns:
        ``[B, L, D]``.
    """
    result = x if in_place else None
    for piece in pieces(x.shape[1]):
        changed = change(x[:, piece], piece)
        if piece == WHOLE:
            return changed.to(dtype)
        if result is None:
            result = x.new_empty(x.shape, dtype=dtype)
        result[:, piece] = changed
    assert result is not None  # no clip is without tokens
    return result


def add(x: Tensor, update: Tensor, gate: Tensor | None = None) -> Tensor:
    """``x + update * gate``, written into ``x`` unless gradients are wanted or a graph is being compiled: that would
    write the sum to memory of its own all the same, and then copy it.

    Args:
        x: ``[B, L, D]`` fp32; the sum stays fp32 when the update is not.
        update: ``[B, L, D]``.
        gate: ``[B, 1, D]`` fp32, or None for 1.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x + update if gate is None else torch.addcmul(x, update, gate)
    return x.add_(update) if gate is None else x.addcmul_(update, gate)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, written into ``x`` unless gradients are wanted or a graph is being compiled."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return functional.gelu(x, approximate="tanh")
    return torch.ops.aten.gelu_(x, approximate="tanh")  # torch has it in place, but under no public name
