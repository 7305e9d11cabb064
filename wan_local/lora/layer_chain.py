"""All that LoRAs beside one linear layer do to it, in the order they came.

What needs no weight is added to the layer's output. As soon as one that counts does need it (DoRA, GLoRA), the whole
chain goes through the weight instead: dequantized, changed in float32, rounded once and multiplied, for the time of one
call, so the result is what merging them into the dequantized weight would give.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..quantised import Packing, packing_of
from .delta import Delta

SAME_DTYPE = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Conv3d)  # calculate with parameters of their input's dtype only


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Link:
    """One change of one layer.

    Attributes:
        strength: says at any time how strongly it counts.
        needs_weight: as of its delta.
        delta: gives it with its tensors on a device.
    """

    strength: Callable[[], float]
    needs_weight: bool
    delta: Callable[[torch.device], Delta]


class LayerChain:
    """The links of one layer; get it by :func:`of`."""

    def __init__(self, layer: nn.Module) -> None:
        self._links: list[Link] = []
        self._hook: RemovableHandle | None = None
        self._through = _ThroughPacking if packing_of(layer) is not None else _ThroughForward

    def add(self, layer: nn.Module, link: Link) -> None:
        if not self._links:
            self._hook = layer.register_forward_hook(self._beside)
        if link.needs_weight and not self._needs_weight():
            self._through.put_on(layer, self)
        self._links.append(link)

    def remove(self, layer: nn.Module, link: Link) -> None:
        before = self._needs_weight()
        self._links.remove(link)
        if before and not self._needs_weight():
            self._through.take_off(layer)
        if not self._links and self._hook is not None:
            self._hook.remove()
            CHAINS.pop(layer, None)

    @property
    def goes_through_weight(self) -> bool:
        return any(link.needs_weight and link.strength() for link in self._links)

    @torch.no_grad()
    def changed(self, weight: Tensor) -> Tensor:
        """``[out, in]`` float32 with all changes that count."""
        for link in self._links:
            if strength := link.strength():
                weight = link.delta(weight.device).applied(weight, strength)
        return weight

    def _needs_weight(self) -> bool:
        return any(link.needs_weight for link in self._links)

    def _beside(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        on = [(strength, link) for link in self._links if (strength := link.strength())]
        if not on or self.goes_through_weight:
            return output
        x = inputs[0].to(output.dtype)  # of another one under autocast
        output = output.contiguous()
        for strength, link in on:
            link.delta(x.device).add_product(output.view(-1, output.shape[-1]), x.reshape(-1, x.shape[-1]), strength)
        return output


CHAINS: weakref.WeakKeyDictionary[nn.Module, LayerChain] = weakref.WeakKeyDictionary()


def of(layer: nn.Module) -> LayerChain:
    """The chain of a layer, a new one if it has none."""
    return CHAINS.setdefault(layer, LayerChain(layer))


class _ThroughPacking:
    """In place of a layer's packing: what comes out is changed already."""

    def __init__(self, packing: Packing, chain: LayerChain) -> None:
        self.packing, self._chain = packing, chain

    @classmethod
    def put_on(cls, layer: Any, chain: LayerChain) -> None:
        through: Packing = cls(layer.packing, chain)
        layer.packing = through

    @staticmethod
    def take_off(layer: Any) -> None:
        layer.packing = layer.packing.packing

    @property
    def name(self) -> str:
        return self.packing.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.packing.shape

    @property
    def bytes(self) -> int:
        return self.packing.bytes

    def dequantize(self, packed: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
        if not self._chain.goes_through_weight:
            return self.packing.dequantize(packed, scale, dtype)
        return self._chain.changed(self.packing.dequantize(packed, scale, torch.float32)).to(dtype)


class _ThroughForward:
    """The forward of a layer with a plain weight, which stays as it is."""

    @staticmethod
    def put_on(layer: Any, chain: LayerChain) -> None:
        reference = weakref.ref(layer)  # a layer that held itself would not be freed at once

        def forward(x: Tensor) -> Tensor:
            here: Any = reference()
            if not chain.goes_through_weight:
                return type(here).forward(here, x)
            dtype = here.weight.dtype if type(here) in SAME_DTYPE else x.dtype
            bias = None if here.bias is None else here.bias.to(dtype)
            return functional.linear(x, chain.changed(here.weight.float()).to(dtype), bias)

        layer.forward = forward

    @staticmethod
    def take_off(layer: Any) -> None:
        del layer.forward
