"""Sparse attention of the tokens among themselves: comfy-kitchen's ``sol_attn`` (arXiv 2607.24027), on request.

Tokens are taken in blocks of 64. A query reads the blocks exactly whose mean key scores high for its own block, and of
every other block one mean key and the sum of its values. Images that are given are not to be approximated, so their
tokens stand in front (``model/token_order.py``): every query reads those blocks exactly, and their own queries go
through the exact kernel. The first steps, which settle what is where, are dense.

What ``sol_attn`` reads exactly it calculates in float32 on a CPU, and in int8 on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from .. import kitchen
from ..errors import InputError, NumericError
from ..free_memory import is_out_of_memory
from . import check
from .choose import Attend, Chosen, choose

OPTION = "sparse"  # in the words of nodes and command line
BLOCK = 64  # tokens
HEAD_DIM = 128
HALF = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
MAX_SCORES = 4 << 30  # bytes of scores that the reference for CPUs writes at most
DENSE = 1 / 5  # of the steps
MIN_TOKENS = 12_288  # below which dense attention is as fast; both as in ComfyUI's node for other models
NONSENSE = 1.0  # relative error: what has nothing to do with the result is off by 1 and more
STAGED = 16  # bytes that its kernels read at once

INSTALL = "pip install -U comfy-kitchen"

Kernel = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparse:
    """How sparse attention is in a run.

    Attributes:
        tau: how far above the mean a block must score to be read exactly, in standard deviations. 0.5 reads about a
            third of all pairs of blocks exactly, 1 a fifth.
        below: it is for timesteps below this one, of 0..1000.
        min_tokens: it is for clips of at least so many.
        given: latent frames of images that are given.
    """

    tau: float
    below: float = math.inf
    min_tokens: int = MIN_TOKENS
    given: tuple[int, ...] = ()

    def over(self, timesteps: Sequence[float]) -> Sparse:
        """The same for a run over these timesteps, of which the first fifth is dense.

        Steps of one timestep are alike: where the last of that fifth shares its own with the next, both are dense.
        """
        first = math.ceil(DENSE * len(timesteps))
        return replace(self, below=float(timesteps[first - 1]))

    def is_for(self, tokens: int) -> bool:
        """Whether a clip of so many tokens is long enough."""
        return tokens >= self.min_tokens


class SparseAttention:
    """Attention of one forward; call it like any kernel, with keys and values of all tokens.

    Args:
        attend: the kernel of this model, for the queries in front; if it approximates, the best exact one is.
        tau: as in :class:`Sparse`.
        front: tokens that stand in front, see :class:`wan_local.model.token_order.TokenOrder`.
    """

    def __init__(self, attend: Attend, tau: float, front: int) -> None:
        approximates = isinstance(attend, Chosen) and attend.approximates
        self._exact, self._tau, self._front = _best_exact() if approximates else attend, tau, front

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[B, L, N, K]``, where rows of ``q`` behind the last key are twins of the row there.

        Raises:
            InputError: tensors that it can't take, or a device that it can't run on.
            NumericError: the kernel failed, or gave numbers that have nothing to do with attention.
        """
        rows = k.shape[1]
        if q.device.type == "meta" or type(q) is not Tensor or self._front >= rows:  # nothing is calculated, or all
            return self._exact(q, k, v)
        out = _run(q[:, :rows], k, v, self._tau, -(-self._front // BLOCK))
        if self._front:
            out[:, : self._front] = self._exact(q[:, : self._front], k, v)
        twins = q.shape[1] - rows
        return torch.cat([out, out[:, -1:].expand(-1, twins, -1, -1)], dim=1) if twins else out


def kernel(device: torch.device) -> tuple[Kernel | None, str]:
    """The function to call on this device, or None and why there is none."""
    if device.type not in ("cuda", "cpu"):
        return None, f"it runs on CUDA, not on {device.type}"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        return None, "it needs a GPU of compute capability 8.0 (Ampere) or later"
    module, reason = kitchen.package() if device.type == "cuda" else kitchen.installed()
    if module is None:
        return None, f"{reason} ({INSTALL})"
    if not hasattr(module, "sol_attn"):
        return None, f"this version of comfy_kitchen has no sparse attention (sol_attn); update it: {INSTALL}"
    return module.sol_attn, ""


def check_can_run(tau: float, device: torch.device | None, head_dim: int) -> None:
    """Raise :class:`InputError` for a head width that it can't take, or a device, if that is known."""
    if reason := _wrong_width(head_dim) or (device is not None and kernel(device)[1]):
        raise refused(tau, reason)


def rejects(q: Tensor) -> str | None:
    """Why it can't take tensors like ``q``, ``[B, L, N, K]``, or None."""
    if reason := _wrong_width(q.shape[-1]):
        return reason
    if q.device.type == "cuda" and q.dtype not in HALF:
        return f"it takes float16 or bfloat16, not {q.dtype}"
    if torch.is_grad_enabled() and q.requires_grad:
        return "it gives no gradients"
    scores = q.shape[0] * q.shape[2] * q.shape[1] ** 2 * 4
    if q.device.type == "cpu" and scores > MAX_SCORES:
        return f"on a CPU it writes all scores to memory, here {scores / 1e9:.0f} GB; it is for GPUs"
    return None


def _wrong_width(head_dim: int) -> str | None:
    told = f"it is made for heads of width {HEAD_DIM}, and this model's are {head_dim}"
    return None if head_dim == HEAD_DIM else told


def refused(tau: float, reason: str) -> InputError:
    """What to raise where it can't be used."""
    return InputError(f"{OPTION}={tau:g} can't be used here: {reason}; set it to 0 for exact attention")


@cache
def _best_exact() -> Attend:
    return choose()


_kernels: dict[tuple[object, ...], Kernel] = {}  # what was right for each kind of problem so far, in this process


def _run(q: Tensor, k: Tensor, v: Tensor, tau: float, blocks: int) -> Tensor:
    """The kernel, its first result of each kind looked at; ``[B, L, N, K]`` each, ``blocks`` of them in front."""
    problem = (q.device, q.dtype, tuple(q.shape), blocks)
    known = _kernels.get(problem)
    function, reason = (known, "") if known is not None else kernel(q.device)
    if function is None or (reason := rejects(q) or ""):
        raise refused(tau, reason)
    q, k, v = (_staged(rows) for rows in (q, k, v))
    try:
        out = function(q, k, v, tau=tau, sink_blocks=[0, blocks])
        error = check.error(out, q, k, v) if known is None else 0.0
    except Exception as failure:  # any failure of a kernel means the same, but for want of memory
        if is_out_of_memory(failure):
            raise
        told = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise NumericError(f"{OPTION}={tau:g} failed: {told}; set it to 0 for exact attention") from failure
    if error >= NONSENSE:
        raise NumericError(
            f"{OPTION}={tau:g} gave wrong numbers on {q.device} (off by {error:.2g}); set it to 0 for exact attention"
        )
    _kernels[problem] = function
    return out


def _staged(rows: Tensor) -> Tensor:
    """As its kernels read them: 16 bytes at once, so from an address and over strides that 16 divides."""
    whole = STAGED // rows.element_size()
    strides = [stride for size, stride in zip(rows.shape[:3], rows.stride()[:3], strict=True) if size > 1]
    straight = rows.stride(3) == 1 and not any(stride % whole for stride in strides) and rows.data_ptr() % STAGED == 0
    return rows if straight else rows.clone(memory_format=torch.contiguous_format)
