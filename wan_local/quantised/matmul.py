"""Matrix products in eight-bit floats, on devices with units for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448
ROW = 16  # the units take matrices with sides that are multiples of this


def has_float8_units(device: torch.device) -> bool:
    """Whether the device multiplies e4m3 matrices: NVIDIA from Ada and Hopper on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def float8_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    reduce_amax: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``x @ (scale * weight).T + bias`` with both factors in e4m3; sums are float32.

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
    rows = x.reshape(-1, x.shape[-1])
    if weight.shape[0] % ROW or weight.shape[1] % ROW or x.dtype not in (torch.bfloat16, torch.float16):
        plain = weight.to(x.dtype) if scale is None else weight.to(x.dtype).mul_(scale)
        return torch.nn.functional.linear(x, plain, bias)
    amax = rows.abs().amax()  # 0-dim, stays on the device
    if reduce_amax is not None:
        amax = reduce_amax(amax)
    step = (amax.float() / LARGEST).clamp_(min=1e-12)
    small = (rows / step).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    by_rows = scale is not None and scale.numel() > 1
    one = torch.ones((), device=x.device) if scale is None or by_rows else scale.reshape(())
    # Before the scales of the rows come to it, a product is hundreds of times what it will be: too much for float16.
    out_dtype = torch.bfloat16 if by_rows else x.dtype
    result = torch._scaled_mm(small, weight.t(), scale_a=step, scale_b=one, out_dtype=out_dtype)
    if scale is not None and by_rows:  # one a row of the weight: a column of the result
        result = result.mul_(scale.reshape(1, -1)).to(x.dtype)
    if bias is not None:
        result = result.add_(bias)
    return result.view(*x.shape[:-1], weight.shape[0])
