"""Attention kernels: one file each, one signature, one table.

    sdpa     torch's own, several of them; every device and dtype, with gradients
    flash    FlashAttention 4, 3 or 2, if installed; CUDA, half precision; exact
    sage     SageAttention, if installed; CUDA, half precision; quantised, so only used when asked for by name
    ck_int8  comfy-kitchen's int8 attention, likewise

Every backend is a module with ``NAME``, ``TOLERANCE`` (relative L2 error it may show, see ``check.py``),
``why_not()`` (a reason it can't run on this machine, or None), ``rejects(q, k)`` (a reason it can't take such
tensors, or None) and ``attend(q, k, v)``, all ``[B, L, N, K]``. To add one: a file beside these, and a line
in ``BACKENDS``; in ``order.py`` if it is exact.

``sparse`` is none of them: it approximates, acts on the tokens among themselves alone, and needs them in an order of
its own.

Read me after ``model/blocks.py``.
"""

from . import ck_int8, flash, sage, sdpa
from .choose import Attend, Backend, Chosen, choose
from .sparse import Sparse, SparseAttention

BACKENDS: dict[str, Backend] = {
    sdpa.NAME: sdpa,
    flash.NAME: flash,
    sage.NAME: sage,
    ck_int8.NAME: ck_int8,
}

__all__ = ["BACKENDS", "Attend", "Backend", "Chosen", "Sparse", "SparseAttention", "choose"]
