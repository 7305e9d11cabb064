"""What an adapter says about one parameter: the change itself, or what it is calculated from.

Every kind can say its change in float32 (:meth:`Delta.applied`), and how it acts beside a layer whose weight is not
touched (:meth:`Delta.add_product`). Read ``products.py`` and ``decomposed.py`` for the kinds beyond plain LoRAs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Kind = TypeVar("Kind", bound="Delta")


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta(ABC):
    """A change of one parameter. Tensors are as stored in the file; sums and products of merging are float32.

    Attributes:
        needs_weight: whether the change depends on the weight that it is a change of.
    """

    needs_weight: ClassVar[bool] = False

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the parameter it changes."""

    @abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """What comes to ``weight`` (float32) at strength 1, in its shape."""

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        """``weight`` (float32) with ``strength`` times the change; a new tensor."""
        return weight + strength * self.on(weight.device).change(weight)

    def add_product(self, y: Tensor, x: Tensor, factor: float) -> None:
        """Add ``factor`` times what the change gives for ``x`` to ``y``, in place; only where no weight is needed.

        Args:
            y: ``[rows, out]``.
            x: ``[rows, in]`` of the same dtype.
            factor: strength.
        """
        y.addmm_(x, self.value().flatten(1).to(x.dtype).t(), alpha=factor)

    def value(self) -> Tensor:
        """The change, float32, in the shape of the parameter; only where no weight is needed."""
        return self.change(torch.empty(self.shape, device="meta"))

    def mapped(self: Kind, each: Callable[[Tensor], Tensor]) -> Kind:
        """The same with every tensor replaced, always in the same order."""
        values = {field.name: _mapped(getattr(self, field.name), each) for field in fields(self)}
        return replace(self, **values)

    def on(self: Kind, device: torch.device) -> Kind:
        return self.mapped(lambda tensor: tensor.to(device))

    def tensors(self) -> list[Tensor]:
        found: list[Tensor] = []
        self.mapped(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found


def _mapped(value: Any, each: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return each(value)
    if isinstance(value, Delta):
        return value.mapped(each)
    return tuple(_mapped(item, each) for item in value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank(Delta):
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
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def fits_together(self) -> bool:
        return self.up.ndim >= 2 and self.down.ndim >= 2 and math.prod(self.up.shape[1:]) == self.rank

    def change(self, weight: Tensor) -> Tensor:
        return (self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())).view(weight.shape)

    def add_product(self, y: Tensor, x: Tensor, factor: float) -> None:
        down, up = self.down.flatten(1).to(x.dtype), self.up.flatten(1).to(x.dtype)
        y.addmm_(functional.linear(x, down), up.t(), alpha=factor * self.scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference(Delta):
    """The change itself, in the shape of the parameter."""

    tensor: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def change(self, weight: Tensor) -> Tensor:
        return self.scale * self.tensor.to(torch.float32).view(weight.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement(Delta):
    """Another value of the parameter: at strength 1 it is this, between 0 and 1 a mixture."""

    needs_weight: ClassVar[bool] = True
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def change(self, weight: Tensor) -> Tensor:
        return self.tensor.to(torch.float32).view(weight.shape) - weight
