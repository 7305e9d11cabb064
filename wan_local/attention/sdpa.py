"""torch's own attention: on every device, in every dtype, with gradients; and on NVIDIA GPUs its kernels one by one.

Left alone torch takes FlashAttention 2 first on most GPUs, and whatever there is last, without a word: a kernel that
writes all scores to memory, which for a clip is hundreds of gigabytes. Here each kernel can be asked for by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

NAME = "sdpa"
TOLERANCE = 1e-2  # bfloat16 rounding of the result alone is about 2e-3
GOOD_CUDNN = 91501  # up to 9.15.0 it is wrong for some lengths that 128 does not divide, and torch passes it over
MAX_SCORES = 2 << 30  # bytes that the kernel which writes scores to memory may take for them
HALF = (torch.float16, torch.bfloat16)


def why_not() -> str | None:
    """Always there."""
    return None


def rejects(q: Tensor, k: Tensor) -> str | None:
    """Takes everything."""
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(K)) v``, by whichever kernel torch takes.

    Args:
        q: ``[B, L, N, K]``.
        k: ``[B, S, N, K]``.
        v: ``[B, S, N, K]``.

    Returns:
        ``[B, L, N, K]``. The transposes are views; the kernels read strides, so nothing is copied.
    """
    out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class TorchKernel:
    """One of torch's kernels; a backend as this module is one."""

    NAME: str
    kernel: SDPBackend
    needs: tuple[int, int]  # least compute capability for bfloat16; the fused halves need the same
    half_only: bool = True
    TOLERANCE: float = TOLERANCE

    def why_not(self) -> str | None:
        """Nothing that is known before it is tried."""
        return None

    def rejects(self, q: Tensor, k: Tensor) -> str | None:
        """Why it can't take tensors like these, or None."""
        if self.half_only and q.dtype not in HALF:
            return f"{self.NAME} takes float16 or bfloat16, not {q.dtype}"
        if (self.half_only or q.dtype == torch.bfloat16) and capability(q.device) < self.needs:
            told = f"{self.NAME} takes no {q.dtype} below compute capability {self.needs[0]}.{self.needs[1]}"
            return told if self.half_only else f"{told}, use float16"
        scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1] * 4
        if self.kernel == SDPBackend.MATH and scores > MAX_SCORES:
            return f"{self.NAME} would write {scores / 1e9:.0f} GB of scores to memory"
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As :func:`attend`, by this kernel alone; RuntimeError where it can't."""
        with sdpa_kernel([self.kernel]):
            return attend(q, k, v)


CUDNN = TorchKernel("sdpa (cuDNN)", SDPBackend.CUDNN_ATTENTION, (8, 0))
FLASH = TorchKernel("sdpa (FlashAttention 2)", SDPBackend.FLASH_ATTENTION, (8, 0))
EFFICIENT = TorchKernel("sdpa (memory efficient)", SDPBackend.EFFICIENT_ATTENTION, (8, 0), half_only=False)
MATH = TorchKernel("sdpa (math)", SDPBackend.MATH, (0, 0), half_only=False)


def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of an NVIDIA GPU."""
    return torch.cuda.get_device_capability(device)


def has_good_cudnn() -> bool:
    """Whether torch's cuDNN is one whose attention is right."""
    return (torch.backends.cudnn.version() or 0) >= GOOD_CUDNN
