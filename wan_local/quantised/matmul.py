"""Matrix products in eight-bit floats, on devices with units for them."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448
ROW = 16  # the units take matrices with sides that are multiples of this


def has_float8_units(device: torch.device) -> bool:
    """Whether the device multiplies e4m3 matrices: NVIDIA from Ada and Hopper on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def float8_linear(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """``x @ (scale * weight).T + bias`` with both factors in e4m3; sums are float32.

    Args:
        x: ``[..., in]``, rounded to e4m3 with one scale for all of it.
        weight: ``[out, in]`` e4m3.
        scale: float32 of the weight, one value or one a row; None for 1.
        bias: ``[out]`` in the dtype of ``x``, or None.

    Returns:
        ``[..., out]`` in the dtype of ``x``. Matrices that the units can't take are multiplied in that dtype.
    """
    rows = x.reshape(-1, x.shape[-1])
    if weight.shape[0] % ROW or weight.shape[1] % ROW or x.dtype not in (torch.bfloat16, torch.float16):
        plain = weight.to(x.dtype) if scale is None else weight.to(x.dtype).mul_(scale)
        return torch.nn.functional.linear(x, plain, bias)
    step = (rows.abs().amax().float() / LARGEST).clamp_(min=1e-12)  # 0-dim, stays on the device
    small = (rows / step).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    one = torch.ones((), device=x.device) if scale is None or scale.numel() > 1 else scale.reshape(())
    result = torch._scaled_mm(small, weight.t(), scale_a=step, scale_b=one, out_dtype=x.dtype)
    if scale is not None and scale.numel() > 1:  # one a row of the weight: a column of the result
        result = result.mul_(scale.reshape(1, -1))
    if bias is not None:
        result = result.add_(bias)
    return result.view(*x.shape[:-1], weight.shape[0])
