"""LoRAs on packed weights, in the host's care: beside the layers, since there are no numbers to add them to.

One transformer is shared by every value on the wires that came from it, with and without LoRAs. Each LoRA's matrices
are buffers of its layers, so the host moves them with the layers; which of them count is said before every run.
"""

from __future__ import annotations

import weakref
from dataclasses import replace

from ..wan_local.lora import Beside, Lora, LowRank
from ..wan_local.model import WanTransformer


class Chain:
    """The LoRAs beside one transformer that one value on a wire has on it."""

    def __init__(self, transformer: WanTransformer) -> None:
        self._transformer = transformer
        self._mine: tuple[_Held, ...] = ()
        self._all: weakref.WeakSet[_Held] = weakref.WeakSet()  # of every value that shares the transformer

    def with_lora(self, lora: Lora, strength: float) -> Chain:
        """The same with one more."""
        chain = Chain(self._transformer)
        held = _Held(self._transformer, lora, strength)
        self._all.add(held)
        chain._mine, chain._all = (*self._mine, held), self._all
        return chain

    def switch_on(self) -> None:
        """Make these count, and no others; call it before every run."""
        for held in list(self._all):
            held.beside.set_strengths([held.strength if held in self._mine else 0.0])

    @property
    def bytes(self) -> int:
        """What the matrices take, which the host does not count."""
        return sum(held.bytes for held in self._mine)


class _Held:
    """One LoRA beside the layers, for as long as some value on a wire has it."""

    def __init__(self, transformer: WanTransformer, lora: Lora, strength: float) -> None:
        self.beside = Beside(transformer, [(lora, 0.0)])
        self.strength = strength
        deltas = lora.deltas.values()
        self.bytes = sum(d.up.nbytes + d.down.nbytes if isinstance(d, LowRank) else d.tensor.nbytes for d in deltas)
        weakref.finalize(self, self.beside.remove).atexit = False


def split(transformer: WanTransformer, lora: Lora) -> tuple[Lora, Lora]:
    """What of a LoRA is about packed weights, and the rest, which the host can add itself."""
    packed = {
        f"{name}.weight" for name, layer in transformer.named_modules() if getattr(layer, "packing", None) is not None
    }
    beside = {name: delta for name, delta in lora.deltas.items() if name in packed}
    rest = {name: delta for name, delta in lora.deltas.items() if name not in packed}
    return replace(lora, deltas=beside), replace(lora, deltas=rest)
