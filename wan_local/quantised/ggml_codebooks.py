"""ggml's block types whose numbers come from a table: IQ, ternary and MXFP4, dequantized by torch like the others.

The layouts are ggml's (``ggml-common.h``, ``ggml-quants.c``, https://github.com/ggml-org/ggml). Types of 4 bits look
one value up in 16, whose table stands here. Those of 3, 2 and 1 bits look four or eight up at once, in tables of up to
2,048 rows: these are the ``gguf`` package's, read from it once a device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import UnreadableWeights
from .ggml_bits import both_halves, halves, long_words, spread, words

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the values of OCP's MX v1.0
TERNARY = (1, 3, 9, 27, 81)
SIGN_TABLE = "IQ2_XXS"  # the type whose table of signs all share
DELTA = 0.125  # of the types of one bit


# -- 4 bits: one value of 16 -----------------------------------------------------------------------------------


def iq4_nl(blocks: Tensor) -> Tensor:
    return halves(blocks[:, :2]) * _looked_up(IQ4, blocks[:, 2:])


def iq4_xs(blocks: Tensor) -> Tensor:
    d, high, low, quants = halves(blocks[:, :2]), words(blocks[:, 2:4]), blocks[:, 4:8], blocks[:, 8:]
    lower = torch.stack([low & 15, low >> 4], dim=2).flatten(1)  # [n, 8]
    upper = (high >> torch.arange(0, 16, 2, dtype=torch.int32, device=blocks.device)) & 3
    scales = (lower | (upper << 4)).float() - 32
    groups = _looked_up(IQ4, quants.reshape(-1, 16)).view(-1, 8, 32)
    return ((d * scales)[..., None] * groups).flatten(1)


def mxfp4(blocks: Tensor) -> Tensor:
    exponent = blocks[:, :1].int()
    bits = torch.where(exponent < 2, 0x00200000 << exponent.clamp(max=1), (exponent - 1) << 23)
    return bits.view(torch.float32) * _looked_up(E2M1, blocks[:, 1:])


# -- ternary: five values of three in a byte, or four ------------------------------------------------------------


def tq1_0(blocks: Tensor) -> Tensor:
    parts = [(blocks[:, :32], 5), (blocks[:, 32:48], 5), (blocks[:, 48:52], 4)]
    quants = [torch.stack([_third(part * power) for power in TERNARY[:count]], dim=1) for part, count in parts]
    return halves(blocks[:, 52:]) * torch.cat([part.flatten(1) for part in quants], dim=1)


def tq2_0(blocks: Tensor) -> Tensor:
    parts = blocks[:, :64].reshape(-1, 2, 32)
    quants = torch.stack([(parts >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2).flatten(1)
    return halves(blocks[:, 64:]) * (quants.float() - 1)


def _third(scaled: Tensor) -> Tensor:
    """The leading digit to base 3 of a byte that overflowed on purpose, less 1."""
    return ((scaled.int() * 3) >> 8).float() - 1


# -- 3 and 2 bits: eight values and their signs at a time --------------------------------------------------------


def iq3_s(blocks: Tensor) -> Tensor:
    quants, high, signs, packed = blocks[:, 2:66], blocks[:, 66:74], blocks[:, 74:106], blocks[:, 106:]
    scales = halves(blocks[:, :2]) * (1 + 2 * both_halves(packed))  # [n, 8]
    return _signed("IQ3_S", quants.int() | (spread(high, 8, 1) << 8), signs, scales)


def iq3_xxs(blocks: Tensor) -> Tensor:
    fours = long_words(blocks[:, 66:])  # [n, 8]: four signs of 7 bits, then a scale of 4
    scales = halves(blocks[:, :2]) * (0.5 + ((fours >> 28) & 15).float()) * 0.5
    return _signed("IQ3_XXS", blocks[:, 2:66].int(), _signs(fours), scales)


def iq2_xxs(blocks: Tensor) -> Tensor:
    pairs = blocks[:, 2:].reshape(-1, 8, 8)  # four numbers of a table, then signs and scale as above
    fours = long_words(pairs[..., 4:].flatten(1))
    scales = halves(blocks[:, :2]) * (0.5 + ((fours >> 28) & 15).float()) * 0.25
    return _signed("IQ2_XXS", pairs[..., :4].flatten(1).int(), _signs(fours), scales)


def iq2_xs(blocks: Tensor) -> Tensor:
    packed = words(blocks[:, 2:66])  # [n, 32]: 9 bits of a table's row, 7 of signs
    scales = halves(blocks[:, :2]) * (0.5 + both_halves(blocks[:, 66:])) * 0.25
    return _signed("IQ2_XS", packed & 511, _table(SIGN_TABLE, "signs", packed.device)[packed >> 9], scales)


def iq2_s(blocks: Tensor) -> Tensor:
    quants, signs, high = blocks[:, 2:34], blocks[:, 34:66], blocks[:, 66:74]
    scales = halves(blocks[:, :2]) * (0.5 + both_halves(blocks[:, 74:])) * 0.25
    return _signed("IQ2_S", quants.int() | (spread(high, 4, 2) << 8), signs, scales)


def _signed(kind: str, rows: Tensor, signs: Tensor, scales: Tensor) -> Tensor:
    """Rows of the type's table ``[n, ...]``, a bit of sign a value (``[n, 32]`` bytes), scales ``[n, groups]``."""
    values = _rows(kind, rows).view(len(rows), -1)  # [n, 256]
    turned = _plus_and_minus(signs.device).index_select(0, signs.flatten().int()).view_as(values)
    groups = (values * turned).view(len(rows), scales.shape[1], -1)
    return (scales[..., None] * groups).flatten(1)


def _signs(packed: Tensor) -> Tensor:
    """Four numbers of 7 bits in each word to the bytes of signs that they stand for, ``[n, 32]``."""
    shifts = torch.tensor((0, 7, 14, 21), dtype=torch.int32, device=packed.device)
    return _table(SIGN_TABLE, "signs", packed.device)[((packed[..., None] >> shifts) & 127).flatten(1)]


# -- 1 bit: eight values of three, and an offset for all ---------------------------------------------------------


def iq1_s(blocks: Tensor) -> Tensor:
    quants, high = blocks[:, 2:34], words(blocks[:, 34:])  # [n, 8]: 3 bits for each of four rows, 3 of scale, offset
    scales = halves(blocks[:, :2]) * (2 * ((high >> 12) & 7) + 1)
    rows = quants.int() | (spread(high, 4, 3) << 8)
    values = _rows("IQ1_S", rows).view(-1, 8, 32) + _offset(high & 0x8000)[..., None]
    return (scales[..., None] * values).flatten(1)


def iq1_m(blocks: Tensor) -> Tensor:
    quants, high, packed = blocks[:, :32], blocks[:, 32:48], words(blocks[:, 48:])  # packed [n, 4]: 4 bits each of d
    parts = (packed & 0xF000) >> torch.tensor((12, 8, 4, 0), dtype=torch.int32, device=blocks.device)
    bits = parts[:, 0] | parts[:, 1] | parts[:, 2] | parts[:, 3]
    d = bits.to(torch.int16).view(torch.float16).float()[:, None]
    scales = d * (2 * spread(packed, 4, 3) + 1)  # [n, 16]
    fours = both_halves(high).int()  # [n, 32]: 3 bits of a row, offset
    values = _rows("IQ1_M", quants.int() | ((fours & 7) << 8)) + _offset(fours & 8)[..., None]
    return (scales[..., None] * values.reshape(-1, 16, 16)).flatten(1)


def _offset(negative: Tensor) -> Tensor:
    return torch.where(negative == 0, DELTA, -DELTA)


# -- tables ----------------------------------------------------------------------------------------------------


def _looked_up(values: tuple[int, ...], packed: Tensor) -> Tensor:
    """16 bytes to 32 of 16 values: the lower halves of all, then the upper ones."""
    pairs = _pairs(values, packed.device).index_select(0, packed.flatten().int())  # two values a byte
    return pairs.view(*packed.shape, 2).transpose(1, 2).flatten(1)


def _rows(kind: str, rows: Tensor) -> Tensor:
    """``[..., values]`` float32 of a type's table."""
    table = _table(kind, "values", rows.device)
    return table.index_select(0, rows.flatten().int()).view(*rows.shape, -1)


@cache
def _pairs(values: tuple[int, ...], device: torch.device) -> Tensor:
    """``[256, 2]``: what the lower and the upper half of every byte stand for."""
    every = torch.arange(256)
    return torch.tensor(values, dtype=torch.float32)[torch.stack([every & 15, every >> 4], dim=1)].to(device)


@cache
def _plus_and_minus(device: torch.device) -> Tensor:
    """``[256, 8]``: 1 or -1 for the bits of every byte."""
    return 1.0 - 2.0 * spread(torch.arange(256, dtype=torch.uint8)[:, None], 8, 1).to(device)


@cache
def _table(kind: str, what: str, device: torch.device) -> Tensor:
    """A type's rows of values, ``[rows, 4 or 8]`` float32, or the 128 bytes of signs."""
    found = of_package(kind)
    if what == "signs":
        return torch.tensor(list(found.ksigns), dtype=torch.uint8, device=device)
    found.init_grid()
    return torch.from_numpy(found.grid).reshape(found.grid_shape).to(device)


def of_package(kind: str) -> Any:
    """The ``gguf`` package's class of a type.

    Raises:
        UnreadableWeights: the package is not installed, or knows no such type.
    """
    try:
        from gguf import quants

        return getattr(quants, kind)
    except (ImportError, AttributeError) as error:
        raise UnreadableWeights(
            f"weights of type {kind} need the tables of the gguf package; run `pip install --upgrade gguf`, or use a "
            "file of type Q3_K or larger, or IQ4"
        ) from error


TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "IQ3_S": iq3_s, "IQ3_XXS": iq3_xxs, "IQ2_S": iq2_s, "IQ2_XS": iq2_xs, "IQ2_XXS": iq2_xxs, "IQ1_S": iq1_s,
    "IQ1_M": iq1_m,
}  # fmt: skip
"""Types that need the ``gguf`` package."""
