"""How a matrix is packed: what every kind of packing can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

CHUNK = 1 << 23  # values dequantized at a time, which bounds the float32 copies that it makes


class Packing(Protocol):
    """One way of keeping a matrix small. Without state: the numbers are in tensors beside it.

    Attributes:
        name: what people call it, such as "fp8 e4m3fn, scaled" or "GGUF Q4_K".
        shape: of the matrix that comes out, ``(out, in)``.
        bytes: that the matrix takes as it is packed, the scales of its blocks included.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def bytes(self) -> int: ...

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The matrix in ``dtype`` on the device of ``packed``; ``scale`` is None for packings that have none."""
        ...


def packing_of(layer: nn.Module) -> Packing | None:
    """How a layer keeps its weight; None where it is plain numbers."""
    packing: Packing | None = getattr(layer, "packing", None)
    return packing


def row_steps(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix a few at a time, which bounds the float32 copies that dequantizing makes."""
    step = max(1, CHUNK // max(1, shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name to shape of every parameter; of packed ones the shape of what they stand for."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        packing = packing_of(module)
        if packing is not None:
            shapes[f"{name}.weight"] = packing.shape
    return shapes


def is_packed(model: nn.Module) -> bool:
    """Whether some layer of it keeps its weight packed."""
    return any(packing_of(module) is not None for module in model.modules())
