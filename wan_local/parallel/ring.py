"""Attention while keys and values go around a ring of GPUs; partial results are merged by their log-sum-exp.

Each GPU attends to one piece after another. Two results over different keys make one: with ``L`` the log of the summed
exponentials, ``out = out1 * exp(L1 - L) + out2 * exp(L2 - L)`` and ``L = logaddexp(L1, L2)`` (Liu et al. 2023, arXiv
2310.01889). ``L`` is float32 whatever the rest is: in bfloat16 the error is five to eight times larger.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention import Sparse
from ..attention.sparse import OPTION
from ..errors import InputError
from .collectives import Group
from .degrees import Degrees

KERNELS = ("auto", "sdpa")  # what a ring takes the place of: torch's own; the others give no log-sum-exp


def ring_attention(ring: Group, q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
    """Attention of this GPU's queries to the keys of all GPUs.

    Args:
        ring: the GPUs, in the order of their pieces of the sequence.
        q, k, v: this GPU's piece, ``[B, l, N, K]``; the last pieces may end in padding, or be padding.
        length: true number of tokens in all pieces together.

    Returns:
        ``[B, l, N, K]`` in the dtype of ``q``.
    """
    piece, total, weight = k.shape[1], None, None
    for step in range(ring.size):
        owner = (ring.index - step) % ring.size
        valid = max(0, min(piece, length - owner * piece))
        if valid:
            out, lse = attend_with_lse(q, k[:, :valid], v[:, :valid])
            if total is None or weight is None:
                total, weight = out.float(), lse
            else:
                both = torch.logaddexp(weight, lse)
                total = total * (weight - both).exp() + out.float() * (lse - both).exp()
                weight = both
        if step < ring.size - 1:
            k, v = ring.pass_on([k, v])
    if total is None:
        raise InputError(f"{length} tokens leave nothing to attend to")
    return total.to(q.dtype)


def attend_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp.

    Args:
        q, k, v: ``[B, L, N, K]``.

    Returns:
        ``[B, L, N, K]`` and ``[B, L, N, 1]`` float32.

    Raises:
        InputError: a device without a kernel that gives both.
    """
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    aten, dtype, length = torch.ops.aten, q.dtype, q.shape[2]
    kernel = kernel_for(q.device, dtype)
    if kernel == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[:2]
    elif kernel == "flash":
        out, lse = aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    else:
        if kernel == "efficient in float32":
            q, k, v = q.float(), k.float(), v.float()
        out, lse = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
        lse = lse[:, :, :length]  # rows are padded there
    return out.to(dtype).transpose(1, 2), lse.float().transpose(1, 2)[..., None]


def kernel_for(device: torch.device, dtype: torch.dtype) -> str:
    """Which of torch's kernels gives a log-sum-exp there: "cpu", "flash", "efficient", "efficient in float32".

    GPUs before compute capability 8.0 have neither the flash kernel nor one for bfloat16.
    """
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise InputError(f"ring attention can't run on {device.type}; use ring=1")
    new = torch.cuda.get_device_capability(device) >= (8, 0)
    if new and dtype in (torch.bfloat16, torch.float16):
        return "flash"
    return "efficient in float32" if dtype == torch.bfloat16 and not new else "efficient"


def check_attention(name: str, degrees: Degrees) -> None:
    """Raise :class:`InputError` for a kernel that a ring can't use; it would silently be another one."""
    if degrees.ring > 1 and name not in KERNELS:
        raise InputError(
            f"attention={name!r} can't be used with {degrees}: it gives no log-sum-exp, which a ring needs; use auto, "
            "or a number of GPUs that heads divide by"
        )


def check_sparse(sparse: Sparse | None, degrees: Degrees) -> None:
    """Raise :class:`InputError` for sparse attention in a ring, where no GPU ever has all keys to choose from."""
    if degrees.ring > 1 and sparse is not None:
        raise InputError(
            f"{OPTION}={sparse.tau:g} can't be used with {degrees}: in a ring no GPU has all tokens at once; set it to "
            "0, or use a number of GPUs that heads divide by"
        )
