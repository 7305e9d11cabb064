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

from ..fused import KNOWS_RMS_NORM

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")

COPIED = 2**20
"""Numbers of a weight that are copied to float32 at a time."""


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
        return _by_rows(x, layer.weight, bias)
    return layer(x)


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A product with the float32 copy of a weight, made of a few rows at a time and written over: that of the time
    projection is 0.63 GB in the released model. On a CPU the product takes a fifth of the time for it."""
    rows = max(1, COPIED // weight.shape[1])
    if torch.is_grad_enabled() or len(weight) <= rows:
        return functional.linear(x, weight.float(), bias)
    copy = torch.empty(rows, weight.shape[1], dtype=torch.float32, device=weight.device)
    out = x.new_empty(*x.shape[:-1], len(weight))
    for start in range(0, len(weight), rows):
        some = slice(start, min(start + rows, len(weight)))
        part = copy[: some.stop - some.start].copy_(weight[some])
        out[..., some] = functional.linear(x, part, None if bias is None else bias[some])
    return out


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
    if type(layer) is nn.RMSNorm and layer.eps is not None and is_of_several_kernels(x):
        return _rms_norm_with_few_tensors(x, layer.weight, layer.eps)
    return layer(x)


def is_of_several_kernels(x: Tensor) -> bool:
    """Whether torch makes RMSNorm of ``x`` of the kernels below, each with a tensor of its own. Before it had a fused
    one it rounded before the weight. On the meta device memory is counted as it is on a CPU."""
    return (
        x.device.type in ("cpu", "meta")
        and KNOWS_RMS_NORM
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _rms_norm_with_few_tensors(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same bits as ``functional.rms_norm`` on a CPU. New memory is what takes the time there: six of ten."""
    rows = x.float()
    squares = rows.pow(2)
    inverse = squares.mean(-1, keepdim=True).add_(eps).rsqrt_()
    return torch.mul(rows, inverse, out=squares).mul_(weight).to(x.dtype)


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
