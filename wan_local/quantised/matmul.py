"""Matrix products in eight bits, on devices with units for them.

What they save is soon lost again by passes over the input, which is large: so it is read once for its largest
magnitude and once to be rounded, for all layers that take the same one, and the bias is added within the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from .. import kitchen

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448
ROW = 16  # the units take matrices with sides that are multiples of this

Rounded = tuple[Tensor, Tensor]  # e4m3 numbers, and the float32 step to multiply them by, 0-dim
_shared: ContextVar[list[tuple[Tensor, Rounded]] | None] = ContextVar("rounded inputs", default=None)


def has_float8_units(device: torch.device) -> bool:
    """Whether the device multiplies e4m3 matrices: NVIDIA from Ada and Hopper on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def shared_inputs() -> AbstractContextManager[None]:
    """A region in which layers that get the same tensor round it once; what was rounded is freed at its end. Nobody may
    write into such a tensor meanwhile. Does nothing in a graph that is being compiled."""
    return nullcontext() if torch.compiler.is_compiling() else _sharing()


@contextmanager
def _sharing() -> Iterator[None]:
    token = _shared.set([])
    try:
        yield
    finally:
        _shared.reset(token)


def float8_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    reduce_amax: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``x @ (scale * weight).T + bias`` with both factors in e4m3; sums are float32.

    Fast accumulation is left off: it keeps some 14 bits of a sum, and took 7 % off one product of three on an H100.

    Args:
        x: ``[..., in]``, rounded to e4m3 with one scale for all of it.
        weight: ``[out, in]`` e4m3.
        scale: float32 of the weight, one value or one a row; None for 1.
        bias: ``[out]`` in the dtype of ``x``, or None.
        reduce_amax: from the largest magnitude in ``x``, 0-dim in its dtype, to the one that decides its scale: where
            ``x`` is one part of the tokens, the largest of all parts, so that parts are rounded as the whole would be.

    Returns:
        ``[..., out]`` in the dtype of ``x``. Matrices that the units can't take are multiplied in that dtype.
    """
    if weight.shape[0] % ROW or weight.shape[1] % ROW or x.dtype not in (torch.bfloat16, torch.float16):
        plain = weight.to(x.dtype) if scale is None else weight.to(x.dtype).mul_(scale)
        return torch.nn.functional.linear(x, plain, bias)
    small, step = _rounded_here(x, reduce_amax)
    if scale is not None and scale.numel() > 1:
        result = _with_row_scales(small, step, weight, scale.view(-1), bias, x.dtype)
    else:
        one = torch.ones((), device=x.device) if scale is None else scale.reshape(())
        result = torch._scaled_mm(small, weight.t(), scale_a=step, scale_b=one, bias=bias, out_dtype=x.dtype)
    return result.view(*x.shape[:-1], weight.shape[0])


def _rounded_here(x: Tensor, reduce_amax: Callable[[Tensor], Tensor] | None) -> Rounded:
    """As :func:`rounded`, the rows of ``x``; once in a region of :func:`shared_inputs`."""
    shared = _shared.get()
    for known, result in shared or ():
        if known is x:
            return result
    result = rounded(x.reshape(-1, x.shape[-1]), reduce_amax)
    if shared is not None:
        shared.append((x, result))
    return result


def rounded(rows: Tensor, reduce_amax: Callable[[Tensor], Tensor] | None = None) -> Rounded:
    """Numbers in e4m3 with one step for all, so that the largest becomes the largest there is.

    Two passes: one that reads, one that reads and writes. The factor is rounded to the dtype of ``rows`` first, which
    CUDA's multiplication would do without telling, and the step is what undoes the rounded one. Nothing can overflow by
    that: what is above 448 by rounding is nearest to 448 still.
    """
    amax = torch.linalg.vector_norm(rows, torch.inf)  # the largest magnitude; stays on the device
    if reduce_amax is not None:
        amax = reduce_amax(amax)
    factor = (LARGEST / amax.float()).clamp_(max=torch.finfo(rows.dtype).max).to(rows.dtype)
    step = factor.float().reciprocal_()
    if rows.is_cuda and (small := kitchen.call("quantize_per_tensor_fp8", rows, step)) is not None:
        return small, step
    small = torch.empty(rows.shape, dtype=torch.float8_e4m3fn, device=rows.device)
    return torch.mul(rows, factor, out=small), step


def has_int8_kernels(x: Tensor) -> bool:
    """Whether comfy-kitchen may be asked to multiply ``x`` by int8 weights."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, turned: int) -> Tensor | None:
    """``x @ (scale * weight).T + bias`` in whole numbers of eight bits by comfy-kitchen's kernel, which rounds each row
    of ``x`` with a step of its own; None without one.

    Args:
        x: ``[..., in]``.
        weight: ``[out, in]`` int8.
        scale: float32 ``[1, 1]`` or ``[out, 1]``.
        bias: ``[out]`` in the dtype of ``x``, or None.
        turned: see :class:`.int8.Int8`; rows of ``x`` are turned alike.
    """
    how = {"convrot": True, "convrot_groupsize": turned} if turned else {}
    return kitchen.call("int8_linear", x, weight, scale, bias, x.dtype, **how)


def _with_row_scales(
    small: Tensor, step: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The product with one scale a row of the weight, a column of the result: applied in one pass with the bias.

    Before these scales come to it, a product is hundreds of times what it will be: too much for float16.
    """
    one = torch.ones((), device=small.device)
    product = torch._scaled_mm(small, weight.t(), scale_a=step, scale_b=one, out_dtype=torch.bfloat16)
    result = product if dtype == torch.bfloat16 else torch.empty_like(product, dtype=dtype)
    if bias is None:
        return torch.mul(product, scales, out=result)
    return torch.addcmul(bias, product, scales, out=result)  # calculated in float32, rounded once
