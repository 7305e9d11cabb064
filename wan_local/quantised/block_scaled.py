"""Small floats in blocks that have a scale each: MXFP8 and NVFP4.

Formats: OCP Microscaling (MX) 1.0 for MXFP8; NVIDIA's NVFP4 has e2m1 numbers, a scale in e4m3 for every 16 of them and
one in float32 for all. In files the scales lie in the order that the matrix units want, see :func:`in_rows`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import row_steps

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of the lower three bits; the fourth is the sign
MANTISSA = 23  # bits of float32 behind its exponent
ROWS, COLUMNS = 128, 4  # of a tile of scales


@dataclass(frozen=True, kw_only=True, slots=True)
class MXFP8:
    """``2 ** (scale - 127) * packed``: e4m3 numbers, and an exponent of eight bits for every 32 of a row.

    Attributes:
        shape: of the matrix. Scales: uint8 ``[out, in / 32]``.
    """

    shape: tuple[int, ...]
    BLOCK = 32
    name = "mxfp8"

    @property
    def bytes(self) -> int:
        return self.shape[0] * (self.shape[1] + self.shape[1] // self.BLOCK)

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``[out, in]`` in ``dtype``; calculated in float32 and rounded once."""
        assert scale is not None
        packed, scale = packed.view(torch.float8_e4m3fn), scale.to(packed.device)
        result = torch.empty(self.shape, dtype=dtype, device=packed.device)
        for rows in row_steps(self.shape):
            powers = (scale[rows].to(torch.int32) << MANTISSA).view(torch.float32)
            result[rows] = (packed[rows].float().unflatten(1, (-1, self.BLOCK)) * powers[..., None]).flatten(1)
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class NVFP4:
    """``factor * scale * packed``: two e2m1 numbers a byte, the first in its upper half.

    Attributes:
        shape: of the matrix. Packed: uint8 ``[out, in / 2]``; scales: e4m3 as uint8 ``[out, in / 16]``.
        factor: of the whole matrix, a float32 value.
    """

    shape: tuple[int, ...]
    factor: float
    BLOCK = 16
    name = "nvfp4"

    @property
    def bytes(self) -> int:
        return self.shape[0] * (self.shape[1] // 2 + self.shape[1] // self.BLOCK)

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``[out, in]`` in ``dtype``; calculated in float32 and rounded once."""
        assert scale is not None
        packed, scale = packed.view(torch.uint8), scale.to(packed.device).view(torch.float8_e4m3fn)
        table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=packed.device)
        result = torch.empty(self.shape, dtype=dtype, device=packed.device)
        for rows in row_steps(self.shape):
            halves = torch.stack([packed[rows] >> 4, packed[rows] & 15], dim=-1).flatten()
            values = table.index_select(0, halves.int()).view(len(packed[rows]), -1, self.BLOCK)
            result[rows] = (values * (self.factor * scale[rows].float())[..., None]).flatten(1)
        return result


def in_rows(scales: Tensor, rows: int, columns: int) -> Tensor:
    """Block scales ``[rows, columns]`` from the order of files: tiles of 128 x 4, and in a tile 32 lines of four rows
    that lie 32 apart (cuBLAS, "1D block scaling factors layout")."""
    down, across = tiles(rows, columns)
    tiled = scales.reshape(down, across, ROWS // 4, 4, COLUMNS)  # [.., .., row % 32, row // 32, column]
    return tiled.permute(0, 3, 2, 1, 4).reshape(down * ROWS, across * COLUMNS)[:rows, :columns].contiguous()


def tiles(rows: int, columns: int) -> tuple[int, int]:
    """Tiles that so many block scales fill, down and across."""
    return math.ceil(rows / ROWS), math.ceil(columns / COLUMNS)
