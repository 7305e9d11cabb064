"""LoHa, LoKr and Tucker forms: products of small matrices other than a plain LoRA's (Yeh et al., arXiv 2309.14859)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .delta import Delta


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """One matrix, whole or in parts.

    Attributes:
        parts: ``(matrix,)``; or ``(a, b)`` for ``a @ b``, ``[out, rank]`` and ``[rank, in, *kernel]``; or
            ``(a, b, core)`` of a convolution in Tucker form, ``[rank, out]``, ``[rank, in]``, ``[rank, rank,
            *kernel]``.
    """

    parts: tuple[Tensor, ...]

    @property
    def rank(self) -> int | None:
        """None for a whole one."""
        return None if len(self.parts) == 1 else self.parts[1].shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        if len(self.parts) == 1:
            return tuple(self.parts[0].shape)
        a, b = self.parts[:2]
        if len(self.parts) == 2:
            return (a.shape[0], *b.shape[1:])
        return (a.shape[1], b.shape[1], *self.parts[2].shape[2:])

    @property
    def fits_together(self) -> bool:
        if len(self.parts) == 1:
            return self.parts[0].ndim >= 2
        a, b = self.parts[:2]
        if a.ndim != 2 or b.ndim < 2:
            return False
        core = self.parts[2].shape if len(self.parts) == 3 else None
        return a.shape[1] == b.shape[0] if core is None else len(core) > 2 and core[:2] == (a.shape[0], b.shape[0])

    def value(self) -> Tensor:
        """Float32, in :attr:`shape`."""
        a, *rest = (part.float() for part in self.parts)
        if not rest:
            return a
        if len(rest) == 1:
            return (a @ rest[0].flatten(1)).view(self.shape)
        return torch.einsum("pq...,po,qi->oi...", rest[1], a, rest[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Tucker(Delta):
    """A LoRA of a convolution with a core between its matrices: ``scale`` times one :class:`Factors` of three parts."""

    parts: tuple[Tensor, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return Factors(parts=self.parts).shape

    def change(self, weight: Tensor) -> Tensor:
        return Factors(parts=self.parts).value().mul_(self.scale).reshape(weight.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hadamard(Delta):
    """LoHa: ``scale * (a1 @ b1) * (a2 @ b2)``, elementwise (Hyeon-Woo et al. 2021, arXiv 2108.06098)."""

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return Factors(parts=self.first).shape

    def change(self, weight: Tensor) -> Tensor:
        both = Factors(parts=self.first).value().mul_(Factors(parts=self.second).value())
        return both.mul_(self.scale).reshape(weight.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kronecker(Delta):
    """LoKr: ``scale * kron(left, right)``; ``left`` is a matrix, ``right`` has the kernel of a convolution."""

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        (out_l, in_l), (out_r, in_r, *kernel) = Factors(parts=self.left).shape[:2], Factors(parts=self.right).shape
        return (out_l * out_r, in_l * in_r, *kernel)

    def change(self, weight: Tensor) -> Tensor:
        left, right = Factors(parts=self.left).value(), Factors(parts=self.right).value()
        left = left.reshape(*left.shape[:2], *[1] * (right.ndim - 2))
        return torch.kron(left, right.contiguous()).mul_(self.scale).reshape(weight.shape)

    def add_product(self, y: Tensor, x: Tensor, factor: float) -> None:
        """Without the large matrix: ``right`` on every group of inputs, then ``left`` among the groups."""
        # Of a convolution of one cell each is stored with sides of 1 behind.
        left, right = (Factors(parts=parts).value().flatten(1).to(x.dtype) for parts in (self.left, self.right))
        groups = functional.linear(x.reshape(-1, left.shape[1], right.shape[1]), right)  # [rows, in_l, out_r]
        y.add_(torch.matmul(left, groups).reshape(y.shape), alpha=factor * self.scale)
