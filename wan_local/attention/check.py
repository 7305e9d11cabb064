"""Whether attention is right: some rows of a result against the same rows calculated in float64.

The result is a real one, of the real length. Faults that were published start at 65,536 rows, or show only at lengths
that 128 does not divide, and no small problem finds them.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, HEADS = 64, 2
KEYS = 8192  # at a time, which bounds what the check takes: some tens of megabytes


@torch.no_grad()
def error(out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> float:
    """Relative L2 error of 64 rows of the first and the last head, the first and last rows among them.

    Args:
        out: ``[B, L, N, K]``, the attention of these.
        q, k, v: ``[B, L or S, N, K]``.

    Returns:
        The error; infinity where the result has NaN and should not; 0 where the inputs have NaN themselves.
    """
    rows = torch.linspace(0, q.shape[1] - 1, min(ROWS, q.shape[1])).round().long().to(q.device)
    off = total = 0.0
    for head in sorted({0, q.shape[2] - 1})[:HEADS]:
        truth = exact_rows(q[-1, rows, head], k[-1, :, head], v[-1, :, head])
        found = out[-1, rows, head].to(truth)
        off += float((found - truth).square().sum())
        total += float(truth.square().sum())
    if total != total:
        return 0.0
    ratio = (off / total) ** 0.5 if total else off
    return ratio if ratio == ratio else float("inf")


def exact_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one head in float64, ``[rows, K]``, over the keys in pieces: partial sums are rescaled to the
    largest score so far."""
    device = torch.device("cpu") if q.device.type == "mps" else q.device  # which has no float64
    q = q.to(device, torch.float64) / q.shape[-1] ** 0.5
    largest = q.new_full((len(q), 1), -torch.inf)
    weight, total = q.new_zeros(len(q), 1), torch.zeros_like(q)
    for start in range(0, len(k), KEYS):
        keys, values = (rows[start : start + KEYS].to(device, torch.float64) for rows in (k, v))
        scores = q @ keys.T  # [rows, keys]
        before, largest = largest, torch.maximum(largest, scores.amax(1, keepdim=True))
        scores, shrink = (scores - largest).exp_(), (before - largest).exp()
        weight = weight * shrink + scores.sum(1, keepdim=True)
        total = total * shrink + scores @ values
    return total / weight
