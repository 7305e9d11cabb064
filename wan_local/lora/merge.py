"""LoRAs into plain weights, for good: no cost a step, and nothing left of the weights before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..errors import InputError
from ..quantised import packing_of
from .read import Lora

PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@torch.no_grad()
def merge(model: nn.Module, loras: Sequence[tuple[Lora, float]]) -> None:
    """Add ``strength * change`` of every LoRA to the model's parameters, in place.

    One after another, as given: a change that is calculated from the weight (DoRA, GLoRA) sees what those before it
    made of it. Sums are taken in float32 and rounded once, however many LoRAs there are. A parameter that is still
    mapped from its file is replaced by one in memory; the file is never written.

    Args:
        model: with official parameter names and float weights.
        loras: each with its strength; negative ones subtract.

    Raises:
        InputError: weights that are not plain numbers.
    """
    names = {name for lora, strength in loras if strength for name in lora.deltas}
    owners = dict(model.named_modules())
    for name in sorted(names):
        path, _, leaf = name.rpartition(".")
        owner = owners[path]
        parameter = getattr(owner, leaf)
        if parameter.dtype not in PLAIN or (leaf == "weight" and packing_of(owner) is not None):
            raise InputError(
                f"{name} is stored as {parameter.dtype}; a LoRA can only be merged into fp16, bf16 or fp32; "
                "use it beside the weights, or dequantize them"
            )
        total = parameter.float()
        for lora, strength in loras:
            if strength and (delta := lora.deltas.get(name)) is not None:
                total = delta.applied(total, strength)
        setattr(owner, leaf, nn.Parameter(total.to(parameter.dtype), requires_grad=parameter.requires_grad))
