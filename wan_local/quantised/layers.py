"""Layers that calculate in the dtype of their input, whatever their weights are kept in.

Give :class:`CastingLayers` as ``operations`` of a model whose weights are packed, or of mixed dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .float8 import Float8
from .int8 import Int8
from .matmul import float8_linear, has_float8_units, has_int8_kernels, int8_linear
from .packing import Packing

SCALE = "scale_weight"  # as ComfyUI's and Kijai's files call it


class PackedLayer(nn.Module):
    """A layer whose weight may be packed: what every kind of them has in common. Comes before torch's class.

    Attributes:
        weight: as in torch, or the packed bytes (then of another shape than the matrix).
        scale: the scales of a packed weight, as its packing has them, or None.
        packing: how to read ``weight``; None for plain numbers.
    """

    weight: Any
    scale: Tensor | None
    packing: Packing | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("scale", None, persistent=False)

    def pack(self, packed: Tensor, packing: Packing, scale: Tensor | None) -> None:
        """Take a packed weight in place of the plain one."""
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scale = scale
        self.packing = packing

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLayer:
        """As torch's, which moves and casts; packed numbers are moved only, since in another dtype they are none."""
        if self.packing is None:
            return super()._apply(fn, recurse)
        dtype, scale = self.weight.dtype, self.scale
        self.weight = nn.Parameter(self.weight.view(torch.uint8), requires_grad=False)
        try:
            super()._apply(fn, recurse)
        finally:
            self.weight = nn.Parameter(self.weight.view(dtype), requires_grad=False)
        if scale is not None and self.scale is not None and self.scale.dtype != scale.dtype:
            self.scale = scale.to(self.scale.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        """With the scale, under the name that files have it by."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packing is not None and self.scale is not None:
            destination[prefix + SCALE] = self.scale if keep_vars else self.scale.detach()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        if self.packing is not None and (scale := state_dict.pop(prefix + SCALE, None)) is not None:
            self.scale = scale.to(self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Linear(PackedLayer, nn.Linear):
    """A linear layer whose weight may be packed; it is dequantized for the time of one call.

    Attributes:
        float8_matmul: whether to multiply in eight bits what is kept in eight bits, see :func:`small_product`.
        reduce_amax: for a layer that is called with one part of the tokens, see :func:`.matmul.float8_linear`; None
            where it has them all.
    """

    float8_matmul: bool = False
    reduce_amax: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]`` in the dtype of ``x``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.float8_matmul and self.packing is not None:
            found = small_product(x, self.weight, self.packing, self.scale, bias, self.reduce_amax)
            if found is not None:
                return found
        return functional.linear(x, self.matrix(x.dtype), bias)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The weight as numbers, ``[out, in]`` in ``dtype``."""
        if self.packing is None:
            return self.weight.to(dtype)
        return self.packing.dequantize(self.weight, self.scale, dtype)


class Embedding(PackedLayer, nn.Embedding):
    """A table whose rows may be packed; only those that are looked up are dequantized.

    Attributes:
        dtype: of the rows that come out of a packed table.
    """

    dtype: torch.dtype = torch.float32

    def forward(self, ids: Tensor) -> Tensor:
        """``[...]`` -> ``[..., width]``."""
        if self.packing is None:
            return super().forward(ids)
        rows = ids.flatten()
        packing: Any = self.packing  # a frozen dataclass, as all of them
        scale = self.scale if self.scale is None or len(self.scale) == 1 else self.scale[rows]
        found = self.weight.view(torch.uint8)[rows]  # torch can't pick rows of fp8
        values = replace(packing, shape=(len(rows), self.embedding_dim)).dequantize(found, scale, self.dtype)
        return values.view(*ids.shape, self.embedding_dim)


class LayerNorm(nn.LayerNorm):
    """torch's, in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        return functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """torch's, in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Conv3d(nn.Conv3d):
    """torch's, in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self._conv_forward(x, self.weight.to(x.dtype), bias)


class CastingLayers:
    """The namespace that models take as ``operations``."""

    Linear = Linear
    LayerNorm = LayerNorm
    RMSNorm = RMSNorm
    Conv3d = Conv3d


def small_product(
    x: Tensor,
    packed: Tensor,
    packing: Packing,
    scale: Tensor | None,
    bias: Tensor | None,
    reduce_amax: Callable[[Tensor], Tensor] | None = None,
) -> Tensor | None:
    """A linear layer with a weight that stays in eight bits: fp8 where the device has units for it, int8 where
    comfy-kitchen has kernels. None where it is to be dequantized."""
    if multiplies_in_float8(packing, x.device):
        return float8_linear(x, packed, scale, bias, reduce_amax)
    if isinstance(packing, Int8) and scale is not None and has_int8_kernels(x):
        return int8_linear(x, packed.view(torch.int8), scale, bias, packing.turned)
    return None


def multiplies_in_float8(packing: Packing | None, device: torch.device) -> bool:
    """Whether a weight packed so can be multiplied as it is: e4m3, not forbidden by its file, on a device that can."""
    if not isinstance(packing, Float8) or packing.wide_products:
        return False
    return packing.dtype == torch.float8_e4m3fn and has_float8_units(device)
