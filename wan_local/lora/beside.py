"""LoRAs that act beside a model's layers: weights stay as they are, packed ones packed, and strengths can change.

``y = W x`` becomes ``y = W x + strength * scale * up (down x)``, which costs two thin products a layer and call. What
is no matrix of a block (norms, modulation, the patch kernel) is small, and is put in place changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .delta import Delta, Difference, LowRank
from .read import Lora

Change = Callable[..., Tensor]
SAME_DTYPE = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Conv3d)  # calculate with parameters of their input's dtype only


class Beside:
    """LoRAs on a model that can be told at any time how strongly each counts.

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
        self._replaced: dict[str, tuple[nn.Parameter, list[tuple[int, Delta]]]] = {}
        for index, (lora, _) in enumerate(loras):
            for name, delta in lora.deltas.items():
                self._add(index, name, delta)
        self._replace()

    def set_strengths(self, strengths: Sequence[float]) -> None:
        """One for every LoRA, in the order they were given; 0 switches one off."""
        if list(strengths) != self._strengths:
            self._strengths[:] = strengths
            self._replace()

    def remove(self) -> None:
        """Leave the model as it was before, to the last bit."""
        for handle in self._handles:
            handle.remove()
        for layer, buffer in self._buffers:
            delattr(layer, buffer)
        for name, (original, _) in self._replaced.items():
            _put(self._model, name, original)
        self._handles, self._buffers, self._replaced = [], [], {}

    def _add(self, index: int, name: str, delta: Delta) -> None:
        path, _, leaf = name.rpartition(".")
        layer = self._model.get_submodule(path)
        if not _is_hooked(path, layer):
            original, changes = self._replaced.setdefault(name, (getattr(layer, leaf), []))
            changes.append((index, delta))
        elif leaf == "bias":
            self._hook(layer, index, _bias, delta.tensor.view(-1) if isinstance(delta, Difference) else delta.value())
        elif isinstance(delta, LowRank):
            self._hook(layer, index, _thin, delta.down.flatten(1), delta.up.flatten(1), scale=delta.scale)
        else:
            self._hook(layer, index, _whole, delta.tensor)

    def _hook(self, layer: Any, index: int, change: Change, *tensors: Tensor, scale: float = 1.0) -> None:
        names = []
        for tensor in tensors:  # in the dtype of their file: they are small
            names.append(f"lora_{len(self._buffers)}")
            layer.register_buffer(names[-1], tensor.to(layer.weight.device), persistent=False)
            self._buffers.append((layer, names[-1]))

        def beside(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            strength = self._strengths[index]
            if not strength:
                return output
            x = inputs[0]
            parts = (getattr(layer, name).to(device=x.device, dtype=x.dtype) for name in names)
            return output.add(change(x, *parts), alpha=strength * scale)

        self._handles.append(layer.register_forward_hook(beside))

    @torch.no_grad()
    def _replace(self) -> None:
        """Put the small parameters in place as the strengths have them."""
        for name, (original, changes) in self._replaced.items():
            total = original.float()
            for index, delta in changes:
                if self._strengths[index]:
                    change = delta.value().to(total.device).reshape(total.shape)
                    total = total + self._strengths[index] * change
            path, _, leaf = name.rpartition(".")
            layer: Any = self._model.get_submodule(path)
            device = getattr(layer, leaf).device  # it may have come to another one since
            if not any(self._strengths[index] for index, _ in changes):
                same = original if original.device == device else nn.Parameter(original.to(device), requires_grad=False)
                _put(self._model, name, same)
                continue
            total = total.to(original.dtype) if type(layer) in SAME_DTYPE else total
            _put(self._model, name, nn.Parameter(total.to(device), requires_grad=False))


def _bias(x: Tensor, bias: Tensor) -> Tensor:
    return bias


def _whole(x: Tensor, matrix: Tensor) -> Tensor:
    return functional.linear(x, matrix)


def _thin(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    return functional.linear(functional.linear(x, down), up)


def _is_hooked(path: str, layer: nn.Module) -> bool:
    """Matrices of blocks, which are always called as layers; and packed ones anywhere, which have no plain weight."""
    if not isinstance(layer, nn.Linear):
        return False
    return path.startswith("blocks.") or getattr(layer, "packing", None) is not None


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)
