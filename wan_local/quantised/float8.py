"""Eight-bit floats, with or without a scale: what ComfyUI's and Kijai's fp8 files hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = {torch.float8_e4m3fn: "fp8 e4m3fn", torch.float8_e5m2: "fp8 e5m2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Float8:
    """``scale * packed``: OCP 8-bit floating point (OFP8, revision 1.0), e4m3 without infinity or e5m2.

    Attributes:
        shape: of the matrix.
        dtype: ``torch.float8_e4m3fn`` or ``torch.float8_e5m2``.
        scaled: whether a scale belongs to it: float32, one value for all or one a row, ``[1 or out, 1]``.
        wide_products: whether its file asks that it be dequantized for products, and never multiplied in fp8.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    scaled: bool = False
    wide_products: bool = False

    @property
    def name(self) -> str:
        return NAMES[self.dtype] + (", scaled" if self.scaled else "")

    @property
    def bytes(self) -> int:
        return math.prod(self.shape)

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``[out, in]`` in ``dtype``; ``packed`` may lie there as any other type of eight bits."""
        weight = packed.view(self.dtype).to(dtype)  # exact in bfloat16, float16 and float32
        if scale is None:
            return weight
        # In place by a float32 tensor that is no scalar: torch multiplies in float32 and rounds once, without a
        # float32 copy of the matrix. A scale rounded to bfloat16 first would shift the whole matrix by up to 0.2 %.
        return weight.mul_(scale.to(weight.device).view(-1, *[1] * (weight.ndim - 1)))
