"""Rotary position embedding over time, height and width.

The ``c = K / 2`` pairs of neighbouring channels of a head are dealt to the three axes: ``c - 2 (c // 3)`` to
time, ``c // 3`` each to height and width. For K = 128 that is 22/21/21 pairs, so 44/42/42 channels. Follows
Wan2.1 ``wan/modules/model.py`` (rope_params, rope_apply); RoFormer, arXiv:2104.09864.

Angles are built in float64 (a bfloat16 table is visibly wrong, float32 angles lose digits), the turning
itself is float32: neighbouring channels *are* a complex number in memory, so one complex product over a view
turns them, with no copy of the input. On CPU it took a tenth of the time of the strided cos/sin form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .norms import float64_device

THETA = 10000.0
PART_OF_A_TURN = 0.9  # of RIFLEx: a whole one still repeated in a few clips


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs for (time, height, width): (22, 21, 21) for a head width of 128."""
    pairs = head_dim // 2
    third = pairs // 3
    return pairs - 2 * third, third, third


def axis_angles(length: int, pairs: int, device: torch.device, trained: int = 0) -> Tensor:
    """Angles ``position * THETA ** (-j / pairs)``, ``[length, pairs]`` fp64.

    ``trained`` positions switch RIFLEx on, where ``length`` is more than one turn of :func:`intrinsic`: its pair is
    slowed down to nine tenths of a turn over the whole length (thu-ml/RIFLEx ``riflex_utils.py``, arXiv:2502.15894).
    """
    position = torch.arange(length, dtype=torch.float64, device=device)
    exponent = torch.arange(pairs, dtype=torch.float64, device=device) / max(pairs, 1)
    frequency = THETA**-exponent
    if trained:
        index, period = intrinsic(pairs, trained)
        if length > period:
            frequency[index] = PART_OF_A_TURN * 2 * math.pi / length
    return torch.outer(position, frequency)


def intrinsic(pairs: int, trained: int) -> tuple[int, int]:
    """The pair of an axis, from 0, that turns about once over the length of training, and the positions of its turn.

    A longer clip sees its second turn, and repeats there what it began with. For Wan's 22 pairs of time and 21 latent
    frames it is the fourth, of 22 positions: ``k = 4`` in the paper's count.
    """
    periods = [round(2 * math.pi * THETA ** (index / pairs)) for index in range(pairs)]
    index = min(range(pairs), key=lambda index: abs(periods[index] - trained))
    return index, periods[index]


def rope_table(grid: tuple[int, int, int], head_dim: int, device: torch.device, trained: int = 0) -> Tensor:
    """Unit complex numbers to turn every pair of every token by. Made anew for each forward: it costs little,
    and a kept one would tie the model to a device, a size and a mode (meta, inference) of its making.

    Args:
        grid: tokens along (time, height, width), in that order of nesting.
        head_dim: head width ``K``.
        device: where the table is wanted.
        trained: tokens along time that the model was trained on, for RIFLEx in a longer clip; 0 for none.

    Returns:
        ``[L, 1, K / 2]`` complex64, ready to broadcast over heads.
    """
    axes = []
    for axis, (length, pairs) in enumerate(zip(grid, axis_pairs(head_dim), strict=True)):
        angles = axis_angles(length, pairs, float64_device(device), 0 if axis else trained)
        turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)
        shape = [1, 1, 1, pairs]
        shape[axis] = length
        axes.append(turns.view(shape).expand(*grid, pairs))  # [t, h, w, pairs]
    return torch.cat(axes, dim=-1).view(-1, 1, head_dim // 2)  # [L, 1, K / 2]


def apply_rope(x: Tensor, table: Tensor, *, in_place: bool = False) -> Tensor:
    """Turn queries or keys, which must already be normalised over the full width.

    Args:
        x: ``[B, L, N, K]``, any float dtype.
        table: :func:`rope_table`, ``[L, 1, K / 2]``; or its ``view_as_real``, ``[L, 1, K / 2, 2]``, for graphs that
            are compiled: complex numbers are not fused there. The result is the same on a CPU.
        in_place: whether ``x`` may be written over, where gradients are not wanted.

    Returns:
        ``[B, L, N, K]`` fp32.
    """
    if not table.is_complex():
        # Each channel by the cosine and its neighbour by the sine; inductor would write a stack out in float32.
        cosine, sine = (part.unsqueeze(-1) for part in table.unbind(-1))  # [L, 1, K / 2, 1]
        rows = x.float().unflatten(-1, (-1, 2))  # [B, L, N, K / 2, 2]
        return (rows * cosine + rows.flip(-1) * torch.cat([-sine, sine], dim=-1)).flatten(-2)
    rows = x.float()
    pairs = torch.view_as_complex(rows.unflatten(-1, (-1, 2)))  # [B, L, N, K / 2]
    if (in_place or rows is not x) and not torch.is_grad_enabled():
        pairs *= table
        return rows
    return torch.view_as_real(pairs * table).flatten(-2)
