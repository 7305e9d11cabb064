"""Weights packed as files have them, with numbers that are random but sane."""

from __future__ import annotations

from typing import Any

import torch

from wan_local.quantised import layers
from wan_local.quantised.float8 import Float8
from wan_local.quantised.ggml import FORMATS, GGML

E4M3, LARGEST = torch.float8_e4m3fn, 448.0
LEAST, WHOLE = 64, 256  # rows, and what divides a row, of a matrix that files pack
HALVES = {"Q8_0": (0,), "Q4_K": (0, 2)}  # where a block has its float16 scales


def packed(model: Any, kind: str) -> Any:
    """Pack every matrix of a model made of :class:`CastingLayers`: "fp8", "fp8 products", or a GGUF type."""
    for layer in model.modules():
        if not isinstance(layer, layers.Linear) or layer.weight.shape[1] % WHOLE or layer.weight.shape[0] < LEAST:
            continue
        rows, columns = layer.weight.shape
        if kind.startswith("fp8"):
            scale = layer.weight.float().abs().amax().view(1, 1) / LARGEST
            numbers = (layer.weight.float() / scale).to(E4M3)
            layer.pack(numbers, Float8(shape=(rows, columns), dtype=E4M3, scaled=True), scale)
            layer.float8_matmul = kind == "fp8 products"
            continue
        about = FORMATS[kind]
        stored = torch.randint(
            0, 255, (rows * columns // about.values, about.size), dtype=torch.uint8, device=layer.weight.device
        )
        for at in HALVES[kind]:
            stored[:, at], stored[:, at + 1] = 0, 0x0C  # 2.4e-4 as a half
        layer.pack(stored.flatten(), GGML(shape=(rows, columns), kind=kind), None)
    return model
