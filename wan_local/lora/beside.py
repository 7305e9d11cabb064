"""LoRAs that act beside a model's layers: weights stay as they are, packed ones packed, and strengths can change.

``y = W x`` becomes ``y = W x + strength * scale * up (down x)``, which costs two thin products a layer and call, and no
memory but their thin result; see ``layer_chain.py`` for the other kinds. What is no matrix of a block (norms, biases,
modulation, the patch kernel) is small, and is put in place changed.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..quantised import packing_of
from . import layer_chain
from .delta import Delta
from .layer_chain import SAME_DTYPE, LayerChain, Link
from .read import Lora

NUMBERS = itertools.count()  # of matrices, in this process: several may be beside one layer and know nothing of another


@dataclass(slots=True, eq=False)
class _Small:
    """A parameter that is put in place changed, and all changes of it: (strengths, which of them, change)."""

    original: nn.Parameter
    changes: list[tuple[list[float], int, Delta]] = field(default_factory=list)


SMALL: weakref.WeakKeyDictionary[nn.Module, dict[str, _Small]] = weakref.WeakKeyDictionary()  # by model and name


class Beside:
    """LoRAs on a model that can be told at any time how strongly each counts. A model may have several of these.

    On one layer they act in the order they were put on.

    Args:
        model: with official parameter names; plain, packed, or partly on another device.
        loras: each with its strength.
        matrices: where the thin matrices are kept, as parameters; None keeps them as buffers of the layers they are
            beside, so that whatever moves a layer moves them too.
    """

    def __init__(
        self, model: nn.Module, loras: Sequence[tuple[Lora, float]], matrices: nn.Module | None = None
    ) -> None:
        self._model = model
        self._strengths = [strength for _, strength in loras]
        self._matrices = matrices
        self._links: list[tuple[nn.Module, LayerChain, Link]] = []
        self._kept: list[tuple[nn.Module, str]] = []
        self._small: dict[str, None] = {}  # names, in order
        for index, (lora, _) in enumerate(loras):
            for name, delta in lora.deltas.items():
                self._add(index, name, delta)
        self._replace(self._small)

    def set_strengths(self, strengths: Sequence[float]) -> None:
        """One for every LoRA, in the order they were given; 0 switches one off."""
        if list(strengths) != self._strengths:
            self._strengths[:] = strengths
            self._replace(self._small)

    def remove(self) -> None:
        """Leave the model as it would be without these, to the last bit; others beside it stay."""
        for layer, chain, link in self._links:
            chain.remove(layer, link)
        for keeper, name in self._kept:
            delattr(keeper, name)
        shared = SMALL.get(self._model, {})
        for name in self._small:
            changes = shared[name].changes
            changes[:] = [change for change in changes if change[0] is not self._strengths]
        self._replace(self._small)
        for name in self._small:
            if not shared[name].changes:
                del shared[name]
        self._links, self._kept, self._small = [], [], {}

    def _add(self, index: int, name: str, delta: Delta) -> None:
        path, _, leaf = name.rpartition(".")
        layer = self._model.get_submodule(path)
        if leaf == "weight" and _is_called(path, layer):
            self._put_beside(index, layer, delta)
            return
        small = SMALL.setdefault(self._model, {}).setdefault(name, _Small(getattr(layer, leaf)))
        small.changes.append((self._strengths, index, delta))
        self._small[name] = None

    def _put_beside(self, index: int, layer: Any, delta: Delta) -> None:
        keeper = layer if self._matrices is None else self._matrices
        names = [self._keep(keeper, tensor, layer.weight.device) for tensor in delta.tensors()]
        form = delta.mapped(lambda tensor: tensor.to("meta"))
        strengths = self._strengths

        def here(device: torch.device) -> Delta:
            kept: Iterator[Tensor] = (getattr(keeper, name) for name in names)
            return form.mapped(lambda _: next(kept).to(device))

        link = Link(strength=lambda: strengths[index], needs_weight=delta.needs_weight, delta=here)
        chain = layer_chain.of(layer)
        chain.add(layer, link)
        self._links.append((layer, chain, link))

    def _keep(self, keeper: nn.Module, tensor: Tensor, device: torch.device) -> str:
        name = f"lora_{next(NUMBERS)}"
        if self._matrices is None:
            keeper.register_buffer(name, tensor.to(device), persistent=False)  # in the dtype of the file: it is small
        else:
            keeper.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self._kept.append((keeper, name))
        return name

    @torch.no_grad()
    def _replace(self, names: Iterable[str]) -> None:
        """Put small parameters in place as the strengths of all that change them have it."""
        for name in names:
            small = SMALL[self._model][name]
            original, total = small.original, small.original.float()
            on = [(strengths[index], delta) for strengths, index, delta in small.changes if strengths[index]]
            for strength, delta in on:
                total = delta.applied(total, strength)
            path, _, leaf = name.rpartition(".")
            layer: Any = self._model.get_submodule(path)
            device = getattr(layer, leaf).device  # it may have come to another one since
            if not on:
                same = original if original.device == device else nn.Parameter(original.to(device), requires_grad=False)
                _put(self._model, name, same)
                continue
            total = total.to(original.dtype) if type(layer) in SAME_DTYPE else total
            _put(self._model, name, nn.Parameter(total.to(device), requires_grad=False))


def _is_called(path: str, layer: nn.Module) -> bool:
    """Matrices of blocks, which are always called as layers; and packed ones anywhere, which have no plain weight."""
    if not isinstance(layer, nn.Linear):
        return False
    return path.startswith("blocks.") or packing_of(layer) is not None


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)
