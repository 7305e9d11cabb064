"""What travels on this pack's own wires. CLIP, CLIP_VISION and VAE are core's, with files of their own."""

from __future__ import annotations

from typing import Any

import torch

from ..wan_local.model import WanTransformer
from ..wan_local.shapes import Grid
from . import host

Model = host.io.Custom("WAN_FLF2V_MODEL")


class WanModel:
    """The value on a ``WAN_FLF2V_MODEL`` wire: a transformer in the host's care.

    ``patcher`` and ``get_models`` are where the host looks for models it may evict. No weights are copied or
    moved here; the host does that.
    """

    def __init__(self, transformer: WanTransformer) -> None:
        self.patcher = host.hold(transformer, host.compute_device(), host.offload_device())

    def get_models(self) -> list[Any]:
        return [self.patcher]

    @property
    def transformer(self) -> WanTransformer:
        return self.patcher.model

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def load(self, grid: Grid) -> WanTransformer:
        """Bring the weights to the device, with room to run a clip of ``grid``; call it before every run."""
        host.load(self.patcher, activation_bytes(self.transformer, grid))
        return self.transformer

    def __repr__(self) -> str:
        config = self.transformer.config
        return f"<Wan transformer, {config.num_layers} blocks of width {config.dim}>"


def activation_bytes(transformer: WanTransformer, grid: Grid) -> int:
    """Upper estimate of what one forward of batch 1 needs besides the weights.

    Alive at the peak, per token: three float32 rows of the model's width (the running sum, its normalised
    copy, an update), five rows of it in the compute dtype (q, k, v, the attention's output and a copy), or in
    their place the widened row of the feed-forward network twice.
    """
    config = transformer.config
    item = (transformer.compute_dtype or torch.float32).itemsize
    wide = max(5 * config.dim, 2 * config.ffn_dim) * item
    return grid.tokens * (3 * config.dim * 4 + wide)
