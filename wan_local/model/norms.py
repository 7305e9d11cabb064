"""Norms and linears at a stated precision, for weights of any precision.

``operations`` decides who runs a layer. torch's own layers want input and weight in one dtype, so the helpers
below bring the weight up where float32 is asked for. Layers of another namespace (a host that casts or
offloads, fp8 or GGUF storage) must compute in the dtype of their input, and are simply called.

Read me after ``transformer.py``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


def compute_dtype(layer: Any, device: torch.device) -> torch.dtype:
    """The dtype ``layer`` wants its input in: autocast's, else its weight's, else (fp8, packed) bfloat16."""
    if device.type in AUTOCAST_DEVICES and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    dtype = layer.weight.dtype
    return dtype if dtype in FLOATS else torch.bfloat16


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A region in which autocast does not lower float32, for the parts the official code keeps there."""
    if device.type in AUTOCAST_DEVICES and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def float64_device(device: torch.device) -> torch.device:
    """``device``, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def is_plain(layer: Any) -> bool:
    """Whether ``layer`` is torch's own, which does not cast its weight to its input."""
    return type(layer) in (nn.Linear, nn.LayerNorm, nn.RMSNorm)


def needs_float32_weight(layer: Any) -> bool:
    return is_plain(layer) and layer.weight.dtype != torch.float32


def linear_float32(layer: Any, x: Tensor) -> Tensor:
    """``layer(x)`` in float32 whatever its weight is stored in; call it inside :func:`without_autocast`."""
    x = x.float()
    if needs_float32_weight(layer):
        bias = None if layer.bias is None else layer.bias.float()
        return functional.linear(x, layer.weight.float(), bias)
    return layer(x)


def layer_norm_float32(layer: Any, x: Tensor) -> Tensor:
    """LayerNorm with weight and bias, in float32."""
    x = x.float()
    if needs_float32_weight(layer):
        return functional.layer_norm(x, x.shape[-1:], layer.weight.float(), layer.bias.float(), layer.eps)
    return layer(x)


def rms_norm(layer: Any, x: Tensor) -> Tensor:
    """RMSNorm over the whole last dimension (all heads together), its mean square in float32.

    The result is float32 where weight and input differ in dtype (autocast), else of the input's dtype.
    """
    if is_plain(layer) and layer.weight.dtype != x.dtype:
        return functional.rms_norm(x.float(), x.shape[-1:], layer.weight.float(), layer.eps)
    return layer(x)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """``layer_norm(x) * (1 + scale) + shift`` in float32, without weights of its own.

    Args:
        x: ``[B, L, D]`` fp32.
        shift: ``[B, 1, D]`` fp32.
        scale: ``[B, 1, D]`` fp32.
    """
    if x.shape[0] == 1:  # then scale and shift are just weight and bias: one pass over x instead of two
        return functional.layer_norm(x, x.shape[-1:], 1 + scale.flatten(), shift.flatten(), eps)
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)
