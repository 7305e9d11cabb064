"""The norm of the Wan-VAE: every pixel's vector of channels to one length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fused import has_rms_norm
from .layout import channels_last

SHORTEST = 1e-12  # length below which the official norm no longer stretches a vector


class ChannelNorm(nn.Module):
    """RMS norm over channels: ``x / |x| * sqrt(C) * gamma`` (the official ``RMS_norm``, without its unused bias).

    Args:
        dim: channels ``C``.
        trailing: spatial axes in the official shape of ``gamma``: 3 in residual blocks, 2 in attention.
    """

    def __init__(self, dim: int, trailing: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * trailing))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, T, H, W]
        # On the channels-last view. A product with a [B, 1, T, H, W] tensor may leave its result in the other
        # memory, and then every convolution behind it turns its input around and back (measured: a third of the time).
        norm = rms_norm if has_rms_norm(x.device) else unit_norm
        normed = norm(x.movedim(1, -1), self.gamma.flatten().to(x))  # a host may keep it elsewhere
        return channels_last(normed.to(x.dtype).movedim(-1, 1))


def rms_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """The norm of ``[..., C]`` in one kernel, where torch has one.

    What keeps from dividing by zero is added under the root here; in the official code it is a bound of the length.
    So vectors shorter than 1e-9 come out up to 1.5 times shorter; zeros are zeros in both.
    """
    with torch.autocast(x.device.type, enabled=False):  # it would make a norm in float32, and convert around it
        return F.rms_norm(x, gamma.shape, gamma, SHORTEST**2 / len(gamma))


def unit_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """The norm of ``[..., C]`` step by step, as the official code has it."""
    # In float32, and no factor beyond the dtype: in float16 the bound would be 0, its inverse infinite, black NaN.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp_min(SHORTEST)
    scale = gamma * len(gamma) ** 0.5
    normed = x * length.reciprocal().clamp_max(torch.finfo(x.dtype).max).to(x.dtype)
    return normed * scale if torch.is_grad_enabled() else normed.mul_(scale)
