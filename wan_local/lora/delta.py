"""What a LoRA says about one parameter: a product of two thin matrices, or the difference itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """``scale * up @ down`` (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        up: ``[out, rank]``, or ``[out, rank, 1, ...]`` of a convolution.
        down: ``[rank, in]``, or ``[rank, in, *kernel]`` of a convolution.
        scale: ``alpha / rank``, or ``alpha / sqrt(rank)`` where the file says that it is rank-stabilised.
    """

    up: Tensor
    down: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter it changes."""
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def fits_together(self) -> bool:
        return self.up.ndim >= 2 and self.down.ndim >= 2 and math.prod(self.up.shape[1:]) == self.rank

    def value(self) -> Tensor:
        """The change, float32, in the shape of the parameter."""
        return (self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())).view(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The change itself, in the shape of the parameter."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def value(self) -> Tensor:
        return self.tensor.to(torch.float32)


Delta = LowRank | Difference
