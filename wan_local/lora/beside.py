"""LoRAs that act beside a model's layers: weights stay as they are, packed ones packed, and strengths can change.

``y = W x`` becomes ``y = W x + strength * scale * up (down x)``, which costs two thin products a layer and call, and no
memory but their thin result: the sum is taken in ``y`` itself. What is no matrix of a block (norms, modulation, the
patch kernel) is small, and is put in place changed.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .delta import Delta, Difference, LowRank
from .read import Lora

Change = Callable[..., None]
SAME_DTYPE = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Conv3d)  # calculate with parameters of their input's dtype only
NUMBERS = itertools.count()  # of buffers, in this process: several may be beside one layer and know nothing of another


@dataclass(slots=True, eq=False)
class _Small:
    """A parameter that is put in place changed, and all changes of it: (strengths, which of them, change)."""

    original: nn.Parameter
    changes: list[tuple[list[float], int, Delta]] = field(default_factory=list)


SMALL: weakref.WeakKeyDictionary[nn.Module, dict[str, _Small]] = weakref.WeakKeyDictionary()  # by model and name


class Beside:
    """LoRAs on a model that can be told at any time how strongly each counts. A model may have several of these.

    Args:
        model: with official parameter names; plain, packed, or partly on another device (the thin matrices are buffers
            of the layers, so whatever moves a layer moves them too).
        loras: each with its strength.
    """

    def __init__(self, model: nn.Module, loras: Sequence[tuple[Lora, float]]) -> None:
        self._model = model
        self._strengths = [strength for _, strength in loras]
        self._handles: list[Any] = []
        self._buffers: list[tuple[nn.Module, str]] = []
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
        for handle in self._handles:
            handle.remove()
        for layer, buffer in self._buffers:
            delattr(layer, buffer)
        shared = SMALL.get(self._model, {})
        for name in self._small:
            changes = shared[name].changes
            changes[:] = [change for change in changes if change[0] is not self._strengths]
        self._replace(self._small)
        for name in self._small:
            if not shared[name].changes:
                del shared[name]
        self._handles, self._buffers, self._small = [], [], {}

    def _add(self, index: int, name: str, delta: Delta) -> None:
        path, _, leaf = name.rpartition(".")
        layer = self._model.get_submodule(path)
        if not _is_hooked(path, layer):
            small = SMALL.setdefault(self._model, {}).setdefault(name, _Small(getattr(layer, leaf)))
            small.changes.append((self._strengths, index, delta))
            self._small[name] = None
        elif leaf == "bias":
            self._hook(layer, index, _bias, delta.tensor.view(-1) if isinstance(delta, Difference) else delta.value())
        elif isinstance(delta, LowRank):
            self._hook(layer, index, _thin, delta.down.flatten(1), delta.up.flatten(1), scale=delta.scale)
        else:
            self._hook(layer, index, _whole, delta.tensor)

    def _hook(self, layer: Any, index: int, change: Change, *tensors: Tensor, scale: float = 1.0) -> None:
        names = []
        for tensor in tensors:  # in the dtype of their file: they are small
            names.append(f"lora_{next(NUMBERS)}")
            layer.register_buffer(names[-1], tensor.to(layer.weight.device), persistent=False)
            self._buffers.append((layer, names[-1]))

        def beside(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            strength = self._strengths[index]
            if not strength:
                return output
            x = inputs[0].to(output.dtype)  # of another one under autocast
            parts = (getattr(layer, name).to(device=x.device, dtype=x.dtype) for name in names)
            output = output.contiguous()
            change(output.view(-1, output.shape[-1]), x.reshape(-1, x.shape[-1]), strength * scale, *parts)
            return output

        self._handles.append(layer.register_forward_hook(beside))

    @torch.no_grad()
    def _replace(self, names: Iterable[str]) -> None:
        """Put small parameters in place as the strengths of all that change them have it."""
        for name in names:
            small = SMALL[self._model][name]
            original, total = small.original, small.original.float()
            on = [(strengths[index], delta) for strengths, index, delta in small.changes if strengths[index]]
            for strength, delta in on:
                total = total + strength * delta.value().to(total.device).reshape(total.shape)
            path, _, leaf = name.rpartition(".")
            layer: Any = self._model.get_submodule(path)
            device = getattr(layer, leaf).device  # it may have come to another one since
            if not on:
                same = original if original.device == device else nn.Parameter(original.to(device), requires_grad=False)
                _put(self._model, name, same)
                continue
            total = total.to(original.dtype) if type(layer) in SAME_DTYPE else total
            _put(self._model, name, nn.Parameter(total.to(device), requires_grad=False))


# What is added to an output, in place: rows of output, rows of input, factor, matrices.


def _bias(y: Tensor, x: Tensor, factor: float, bias: Tensor) -> None:
    y.add_(bias, alpha=factor)


def _whole(y: Tensor, x: Tensor, factor: float, matrix: Tensor) -> None:
    y.addmm_(x, matrix.t(), alpha=factor)


def _thin(y: Tensor, x: Tensor, factor: float, down: Tensor, up: Tensor) -> None:
    y.addmm_(functional.linear(x, down), up.t(), alpha=factor)


def _is_hooked(path: str, layer: nn.Module) -> bool:
    """Matrices of blocks, which are always called as layers; and packed ones anywhere, which have no plain weight."""
    if not isinstance(layer, nn.Linear):
        return False
    return path.startswith("blocks.") or getattr(layer, "packing", None) is not None


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)
