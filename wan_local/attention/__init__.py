"""Attention kernels: one file each, one signature, one table.

    sdpa    torch's own; every device and dtype, with gradients; what the others are measured against
    flash   FlashAttention 3 or 2, if installed; CUDA, half precision; exact
    sage    SageAttention, if installed; CUDA, half precision; quantised, so only used when asked for by name

Every backend is a module with ``NAME``, ``TOLERANCE`` (relative L2 error it may show against sdpa),
``why_not()`` (a reason it can't run on this machine, or None), ``rejects(q)`` (a reason it can't take such
tensors, or None) and ``attend(q, k, v)``, all ``[B, L, N, K]``. To add one: a file beside these, and a line
in ``BACKENDS``.

Read me after ``model/blocks.py``.
"""

from . import flash, sage, sdpa
from .choose import Attend, Backend, choose

BACKENDS: dict[str, Backend] = {
    sdpa.NAME: sdpa,
    flash.NAME: flash,
    sage.NAME: sage,
}

__all__ = ["BACKENDS", "Attend", "Backend", "choose"]
