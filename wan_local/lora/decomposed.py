"""GLoRA and DoRA: changes that are calculated from the weight itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .delta import Delta

EPSILON = torch.finfo(torch.float32).eps  # beside a norm, so that a row of zeros stays one


@dataclass(frozen=True, kw_only=True, slots=True)
class General(Delta):
    """GLoRA: ``scale * (W @ a1 @ a2 + b1 @ b2)`` (Chavan et al. 2023, arXiv 2306.07967; LyCORIS ``glora``).

    Attributes:
        a1, a2: ``[in, rank]``, ``[rank, in]``.
        b1, b2: ``[out, rank]``, ``[rank, in, *kernel]``.
        scale: ``alpha / rank``.
    """

    needs_weight: ClassVar[bool] = True
    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.b1.shape[0], *self.b2.shape[1:])

    @property
    def fits_together(self) -> bool:
        if min(self.a1.ndim, self.a2.ndim, self.b1.ndim, self.b2.ndim) < 2:
            return False
        ranks = {self.a1.shape[1], self.a2.shape[0]}, {self.b1.shape[1], self.b2.shape[0]}
        return all(len(rank) == 1 for rank in ranks) and self.a1.shape[0] == self.a2.shape[1] == self.b2.shape[1]

    def change(self, weight: Tensor) -> Tensor:
        a1, a2, b1, b2 = (part.flatten(1).float() for part in (self.a1, self.a2, self.b1, self.b2))
        through = torch.einsum("oi...,ir->or...", weight, a1)
        result = torch.einsum("or...,ri->oi...", through, a2)
        return result.add_((b1 @ b2).view(weight.shape)).mul_(self.scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decomposed(Delta):
    """DoRA: ``magnitude * (W + change) / norm(W + change)`` in place of ``W`` (Liu et al. 2024, arXiv 2402.09353).

    The norm is that of the changed weight, as it was in training (peft, LyCORIS), over all sides but one. At another
    strength than 1 the weight is ``W + strength * (what it is at 1 - W)``, as ComfyUI's ``weight_decompose`` has it.

    Attributes:
        inner: change of direction: a LoRA, LoHa, LoKr or GLoRA.
        magnitude: one number for each row of outputs (``axis`` 0) or of inputs (1), of any shape.
        axis: the side that it belongs to.
    """

    needs_weight: ClassVar[bool] = True
    inner: Delta
    magnitude: Tensor
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    def change(self, weight: Tensor) -> Tensor:
        changed = weight + self.inner.change(weight)
        others = [side for side in range(weight.ndim) if side != self.axis]
        norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True).add_(EPSILON)
        return changed.mul_(self.magnitude.float().view(norm.shape) / norm).sub_(weight)
