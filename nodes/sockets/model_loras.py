"""LoRAs on quantised weights, in the host's care: beside the layers, since there are no numbers to add them to.

One transformer is shared by every value on the wires that came from it, with and without LoRAs; which of them count is
said before every run. Each LoRA's matrices are a model of their own to the host, which moves, counts and evicts them.
They must not be buffers of the transformer's layers: the host keeps what it finds on a model that it loads and puts it
back when it unloads, also what was taken off in between.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from torch import nn

from ...wan_local.lora import Beside, Lora
from ...wan_local.model import WanTransformer
from .. import host


class LorasBeside:
    """The LoRAs beside one transformer that one value on a wire has on it."""

    def __init__(self, transformer: WanTransformer) -> None:
        self._transformer = transformer
        self._mine: tuple[_PlacedLora, ...] = ()
        self._all: weakref.WeakSet[_PlacedLora] = weakref.WeakSet()  # of every value that shares the transformer

    def with_lora(self, lora: Lora, strength: float) -> LorasBeside:
        """The same with one more."""
        more = LorasBeside(self._transformer)
        placed = _PlacedLora(self._transformer, lora, strength)
        self._all.add(placed)
        more._mine, more._all = (*self._mine, placed), self._all
        return more

    def switch_on(self) -> None:
        """Make these count, and no others; call it before every run."""
        for placed in list(self._all):
            placed.beside.set_strengths([placed.strength if placed in self._mine else 0.0])

    @property
    def patchers(self) -> list[Any]:
        """What the host is to load for these to count."""
        return [placed.patcher for placed in self._mine]


class _PlacedLora:
    """One LoRA beside the layers, for as long as some value on a wire has it."""

    def __init__(self, transformer: WanTransformer, lora: Lora, strength: float) -> None:
        matrices = nn.Module()
        self.beside = Beside(transformer, [(lora, 0.0)], matrices)
        self.strength = strength
        whole = LoraMatrices(matrices)
        self.patcher = host.hold(whole, host.compute_device(), host.offload_device())
        weakref.finalize(self, self.beside.remove).atexit = False


class LoraMatrices(nn.Module):
    """What the host holds for one LoRA; its log calls it by this name."""

    def __init__(self, matrices: nn.Module) -> None:
        super().__init__()
        self.matrices = matrices


def split(transformer: WanTransformer, lora: Lora) -> tuple[Lora, Lora]:
    """What of a LoRA is about quantised weights, and the rest, which the host can add itself."""
    packed = {
        f"{name}.weight" for name, layer in transformer.named_modules() if getattr(layer, "packing", None) is not None
    }
    beside = {name: delta for name, delta in lora.deltas.items() if name in packed}
    rest = {name: delta for name, delta in lora.deltas.items() if name not in packed}
    return replace(lora, deltas=beside), replace(lora, deltas=rest)
