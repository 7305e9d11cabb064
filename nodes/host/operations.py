"""The host's layers, which fetch weights at use from wherever it keeps them; ours may be packed."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch

from ...wan_local import quantised


class Operations(comfy.ops.manual_cast):
    """Core's casting layers, which work in their input's dtype; the ``Linear`` has its parameters from the start.

    With dynamic VRAM core's own comes without them until it is loaded; a loader that compares names and
    shapes before it reads would find none. Core builds any class that has a loader of its own the usual way.
    """

    class Linear(comfy.ops.manual_cast.Linear):
        """Its weight may be packed, as in ``wan_local.quantised.Linear``; the host then fetches the packed bytes."""

        packing: Any = None
        float8_matmul = False

        def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
            super()._load_from_state_dict(*args, **options)

        def pack(self, packed: torch.Tensor, packing: Any, scale: torch.Tensor | None) -> None:
            self.weight = torch.nn.Parameter(packed, requires_grad=False)
            self.register_buffer("scale", scale, persistent=False)
            self.packing = packing

        def forward_comfy_cast_weights(self, x: torch.Tensor) -> torch.Tensor:
            if self.packing is None:
                return super().forward_comfy_cast_weights(x)
            packed, bias, stream = comfy.ops.cast_bias_weight(
                self, x, dtype=self.weight.dtype, bias_dtype=x.dtype, offloadable=True
            )
            scale = None if self.scale is None else self.scale.to(x.device)
            result = quantised.small_product(x, packed, self.packing, scale, bias) if self.float8_matmul else None
            if result is None:
                result = torch.nn.functional.linear(x, self.packing.dequantize(packed, scale, x.dtype), bias)
            comfy.ops.uncast_bias_weight(self, packed, bias, stream)
            return result
