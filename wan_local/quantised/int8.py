"""Eight-bit whole numbers with scales, turned or not: what ComfyUI calls ``int8_tensorwise``.

Turning ("ConvRot") multiplies every group of a row by an orthogonal matrix before it is rounded, which spreads what
sticks out over the group. Dequantizing turns it back. Format: comfy-kitchen, ``TensorWiseINT8Layout``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import row_steps

SMALLEST_TURN = 4
FLOAT = 4  # bytes of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8:
    """``scale * packed``, a scale for all or one a row, float32 ``[scales, 1]``.

    Attributes:
        shape: of the matrix.
        scales: 1, or as many as rows.
        turned: values of a row that were turned together, a power of 4 that divides it; 0 for none.
    """

    shape: tuple[int, ...]
    scales: int = 1
    turned: int = 0

    @property
    def name(self) -> str:
        return "int8, turned" if self.turned else "int8"

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.shape[1] + self.scales * FLOAT

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``[out, in]`` in ``dtype``; calculated in float32 and rounded once."""
        assert scale is not None
        packed, scale = packed.view(torch.int8), scale.to(packed.device)
        result = torch.empty(self.shape, dtype=dtype, device=packed.device)
        turn = hadamard(self.turned, packed.device) if self.turned else None
        for rows in row_steps(self.shape):
            values = packed[rows].float() * (scale if self.scales == 1 else scale[rows])
            if turn is not None:  # it is its own inverse
                values = torch.matmul(values.unflatten(1, (-1, self.turned)), turn.T).flatten(1)
            result[rows] = values
        return result


def hadamard(side: int, device: torch.device) -> Tensor:
    """The symmetric, orthogonal matrix of ``side`` x ``side`` that rows are turned by, float32: Kronecker powers of
    the regular Hadamard matrix of order 4."""
    four = 1.0 - 2.0 * torch.eye(SMALLEST_TURN, device=device).flip(0)
    matrix = four
    while len(matrix) < side:
        matrix = torch.kron(matrix, four)
    return matrix / side**0.5


def can_turn(side: int) -> bool:
    """Whether there is such a matrix of that side."""
    return side >= SMALLEST_TURN and side & (side - 1) == 0 and side.bit_length() % 2 == 1
