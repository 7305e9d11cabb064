"""The block formats of GGUF files, dequantized by torch on whatever device they lie.

Every block is some bytes that stand for 32 or 256 values. The layouts are those of ggml's ``ggml-common.h`` and
``ggml-quants.c`` (https://github.com/ggml-org/ggml), which the ``gguf`` package has in numpy. Those that look numbers
up in tables are in ``ggml_codebooks.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ggml_codebooks as codebooks
from .ggml_bits import halves
from .packing import CHUNK

SMALL, LARGE = 32, 256  # values a block


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """One of ggml's types.

    Attributes:
        values: in a block.
        size: bytes of a block.
        dequantize: blocks ``[n, size]`` uint8 to values ``[n, values]`` float32.
    """

    values: int
    size: int
    dequantize: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class GGML:
    """A matrix as ggml blocks, row after row.

    Attributes:
        shape: of the matrix; the last side is a whole number of blocks.
        kind: ggml's name of the type, a key of :data:`FORMATS`.
    """

    shape: tuple[int, ...]
    kind: str

    @property
    def name(self) -> str:
        return f"GGUF {self.kind}"

    @property
    def bytes(self) -> int:
        return packed_bytes(self.kind, (math.prod(self.shape),))

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """``shape`` in ``dtype``; there is never a scale."""
        form = FORMATS[self.kind]
        blocks = packed.view(torch.uint8).reshape(-1, form.size)
        result = torch.empty(len(blocks), form.values, dtype=dtype, device=packed.device)
        step = max(1, CHUNK // form.values)
        for start in range(0, len(blocks), step):
            result[start : start + step] = form.dequantize(blocks[start : start + step])
        return result.view(self.shape)


def packed_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor of that shape takes.

    Raises:
        ValueError: its rows are no whole blocks.
    """
    values, size = FORMATS[kind].values, FORMATS[kind].size
    if not shape or shape[-1] % values:
        raise ValueError(f"rows of {shape[-1] if shape else 0} values are no whole {kind} blocks of {values}")
    return math.prod(shape) // values * size


# -- blocks of 32 ----------------------------------------------------------------------------------------


def _q4_0(blocks: Tensor) -> Tensor:
    d, quants = halves(blocks[:, :2]), _nibbles(blocks[:, 2:])
    return d * (quants - 8.0)


def _q4_1(blocks: Tensor) -> Tensor:
    d, m, quants = halves(blocks[:, :2]), halves(blocks[:, 2:4]), _nibbles(blocks[:, 4:])
    return d * quants + m


def _q5_0(blocks: Tensor) -> Tensor:
    d, quants = halves(blocks[:, :2]), _nibbles(blocks[:, 6:]) + 16 * _bits(blocks[:, 2:6])
    return d * (quants - 16.0)


def _q5_1(blocks: Tensor) -> Tensor:
    d, m = halves(blocks[:, :2]), halves(blocks[:, 2:4])
    return d * (_nibbles(blocks[:, 8:]) + 16 * _bits(blocks[:, 4:8])) + m


def _q8_0(blocks: Tensor) -> Tensor:
    return halves(blocks[:, :2]) * blocks[:, 2:].view(torch.int8)


# -- blocks of 256, in smaller groups that have scales of their own -----------------------------------------


def _q2_k(blocks: Tensor) -> Tensor:
    scales, quants = blocks[:, :16], blocks[:, 16:80]
    d, low = halves(blocks[:, 80:82]), halves(blocks[:, 82:84])
    groups = _planes(quants).view(-1, 16, 16)
    return ((d * (scales & 15))[..., None] * groups - (low * (scales >> 4))[..., None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    high, quants, packed, d = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108], halves(blocks[:, 108:])
    lower = torch.cat([packed[:, :8] & 15, packed[:, :8] >> 4], dim=1)  # 16 scales of 6 bits: four here, ...
    upper = torch.cat([(packed[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], dim=1)  # ... two there
    scales = (lower | (upper << 4)).float() - 32
    third = torch.stack([(high >> bit) & 1 for bit in range(8)], dim=1)  # [n, 8, 32]; 0 takes 4 off
    groups = (_planes(quants) + 4.0 * third.flatten(1) - 4.0).view(-1, 16, 16)
    return ((d * scales)[..., None] * groups).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_with_minimum(blocks, _pairs(blocks[:, 16:]))


def _q5_k(blocks: Tensor) -> Tensor:
    fifth = torch.stack([(blocks[:, 16:48] >> bit) & 1 for bit in range(8)], dim=1)  # [n, 8, 32]
    return _k_with_minimum(blocks, _pairs(blocks[:, 48:]) + 16 * fifth)


def _q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, d = blocks[:, :128], blocks[:, 128:192], blocks[:, 192:208], halves(blocks[:, 208:])
    nibbles = torch.stack([low.view(-1, 2, 64) & 15, low.view(-1, 2, 64) >> 4], dim=2).flatten(1)  # [n, 256]
    groups = (nibbles + 16 * _planes(high) - 32.0).view(-1, 16, 16)
    return ((d * scales.view(torch.int8))[..., None] * groups).flatten(1)


def _k_with_minimum(blocks: Tensor, groups: Tensor) -> Tensor:
    """Q4_K and Q5_K: eight groups ``[n, 8, 32]`` with 6-bit scales and minima in 12 bytes."""
    d, low, packed = halves(blocks[:, :2]), halves(blocks[:, 2:4]), blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=1)
    minima = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=1)
    return ((d * scales)[..., None] * groups - (low * minima)[..., None]).flatten(1)


# -- bytes to numbers --------------------------------------------------------------------------------------


def _nibbles(packed: Tensor) -> Tensor:
    """16 bytes to 32 values: the lower halves of all, then the upper ones."""
    return torch.cat([packed & 15, packed >> 4], dim=1)


def _bits(four: Tensor) -> Tensor:
    """Four bytes to 32 bits, lowest first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=four.device)
    return ((four[:, :, None] >> shifts) & 1).flatten(1)


def _planes(packed: Tensor) -> Tensor:
    """64 bytes to 256 values of 2 bits: of every 32 bytes first the lowest bits of all, then the next."""
    halves = packed.view(-1, 2, 32)
    return torch.stack([(halves >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)


def _pairs(packed: Tensor) -> Tensor:
    """128 bytes to ``[n, 8, 32]``: of every 32 bytes the lower halves, then the upper ones."""
    fourths = packed.reshape(-1, 4, 32)
    return torch.stack([fourths & 15, fourths >> 4], dim=2).flatten(1, 2)


FORMATS = {
    "Q4_0": BlockFormat(SMALL, 18, _q4_0),
    "Q4_1": BlockFormat(SMALL, 20, _q4_1),
    "Q5_0": BlockFormat(SMALL, 22, _q5_0),
    "Q5_1": BlockFormat(SMALL, 24, _q5_1),
    "Q8_0": BlockFormat(SMALL, 34, _q8_0),
    "Q2_K": BlockFormat(LARGE, 84, _q2_k),
    "Q3_K": BlockFormat(LARGE, 110, _q3_k),
    "Q4_K": BlockFormat(LARGE, 144, _q4_k),
    "Q5_K": BlockFormat(LARGE, 176, _q5_k),
    "Q6_K": BlockFormat(LARGE, 210, _q6_k),
    "IQ4_NL": BlockFormat(SMALL, 18, codebooks.iq4_nl),
    "IQ4_XS": BlockFormat(LARGE, 136, codebooks.iq4_xs),
    "IQ3_S": BlockFormat(LARGE, 110, codebooks.iq3_s),
    "IQ3_XXS": BlockFormat(LARGE, 98, codebooks.iq3_xxs),
    "IQ2_S": BlockFormat(LARGE, 82, codebooks.iq2_s),
    "IQ2_XS": BlockFormat(LARGE, 74, codebooks.iq2_xs),
    "IQ2_XXS": BlockFormat(LARGE, 66, codebooks.iq2_xxs),
    "IQ1_S": BlockFormat(LARGE, 50, codebooks.iq1_s),
    "IQ1_M": BlockFormat(LARGE, 56, codebooks.iq1_m),
    "TQ1_0": BlockFormat(LARGE, 54, codebooks.tq1_0),
    "TQ2_0": BlockFormat(LARGE, 66, codebooks.tq2_0),
    "MXFP4": BlockFormat(SMALL, 17, codebooks.mxfp4),
}
"""Every block type that Wan files come in, by ggml's name."""
