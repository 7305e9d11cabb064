"""Changes of weights in the host's form, which adds them to a weight wherever it keeps that."""

from __future__ import annotations

from typing import Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase
from comfy.weight_adapter.lora import LoRAAdapter

from ...wan_local.lora import Delta, Difference, LowRank


def patch(delta: Delta) -> Any:
    """A LoRA's change of one weight, for :func:`patched`.

    The host's own classes for other changes than these two are not used: from 0.8.0 to 0.33.0 its DoRA divides rows of
    outputs by the norm of the weight before the change, where trainers divide by that of the changed one.
    """
    if isinstance(delta, LowRank):
        return LoRAAdapter(set(), (delta.up, delta.down, delta.scale * delta.down.shape[0], None, None, None))
    if isinstance(delta, Difference):
        return ("diff", (delta.tensor if delta.scale == 1.0 else delta.scale * delta.tensor,))
    return _Adapter(set(), (delta.mapped(lambda tensor: tensor.to("meta")), *delta.tensors()))


class _Adapter(WeightAdapterBase):
    """One change in the host's form: a tuple in which it finds the tensors that it moves, behind what they are."""

    name = "WanFLF2V"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(
        self, weight: torch.Tensor, key: str, strength: float, *others: Any, **options: Any
    ) -> torch.Tensor:
        form, *tensors = self.weights
        each = iter(tensors)
        delta = form.mapped(lambda _: next(each).to(weight.device))
        return delta.applied(weight.float(), strength).to(weight.dtype)


def patched(patcher: Any, patches: dict[str, Any], strength: float, replaced: dict[str, torch.nn.Parameter]) -> Any:
    """A patcher of the same weights with ``strength`` times ``patches`` on top.

    Args:
        patcher: from :func:`hold`; stays as it is.
        patches: parameter name of a layer to a :func:`patch`.
        strength: of all of them.
        replaced: parameters that belong to no layer. The host patches layers only, so these are put in place whole.
    """
    copy = patcher.clone()
    copy.add_patches(patches, strength)
    for name, parameter in replaced.items():
        copy.add_object_patch(name, parameter)
    return copy


def parameter(patcher: Any, name: str) -> torch.nn.Parameter:
    """The parameter ``name``, in no layer, as ``patcher`` has it.

    All patchers of the same weights share one network, in which what another one put in place may still be.
    """
    found: torch.nn.Parameter = patcher.get_model_object(name)
    return found
