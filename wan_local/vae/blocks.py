"""The layers the Wan-VAE is made of: norm, residual block, per-frame attention, up- and downsampling.

Official: Wan-Video/Wan2.1 ``wan/modules/vae.py``; the attribute names are the official parameter names.
Tensors are ``[B, C, T, H, W]`` in channels-last memory, which makes "one image per frame" and "channels last" views
instead of copies and is what fast convolutions want.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal_conv import causal_conv
from .stream import Stream


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
        scale = self.gamma.view(1, -1, 1, 1, 1) * x.shape[1] ** 0.5
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)  # [B, 1, T, H, W]
        # Under autocast the norm comes back in float32; the two large products stay in the dtype of x.
        return x * length.reciprocal().to(x.dtype) * scale.to(x.dtype)


class ResidualBlock(nn.Module):
    """Two (norm, SiLU, causal 3x3x3 convolution) with a shortcut."""

    def __init__(self, in_dim: int, out_dim: int, operations: Any) -> None:
        super().__init__()
        # Keys are the places in the official nn.Sequential; 1, 4 and 5 are activations and dropout there.
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(in_dim, 3),
                "2": operations.Conv3d(in_dim, out_dim, 3, padding=(0, 1, 1)),
                "3": ChannelNorm(out_dim, 3),
                "6": operations.Conv3d(out_dim, out_dim, 3, padding=(0, 1, 1)),
            }
        )
        self.shortcut = operations.Conv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        layers = self.residual
        h = causal_conv(layers["2"], F.silu(layers["0"](x), inplace=True), stream)
        h = causal_conv(layers["6"], F.silu(layers["3"](h), inplace=True), stream)
        return self.shortcut(x) + h


class AttentionBlock(nn.Module):
    """Self-attention within each frame, one head of full width."""

    def __init__(self, dim: int, operations: Any) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = operations.Conv2d(dim, dim * 3, 1)
        self.proj = operations.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        frames = as_images(self.norm(x))  # [B*T, C, H, W]
        images, channels, height, width = frames.shape
        qkv = self.to_qkv(frames).flatten(2).transpose(1, 2)  # [B*T, H*W, 3*C]
        q, k, v = qkv.unsqueeze(1).chunk(3, dim=-1)  # [B*T, 1, H*W, C] each
        out = F.scaled_dot_product_attention(q, k, v)
        out = out.squeeze(1).transpose(1, 2).reshape(images, channels, height, width)
        return x + as_video(self.proj(out), x.shape[2])


class Downsample(nn.Module):
    """Halve height and width, and time too if ``temporal``. The clip's first frame passes time unchanged."""

    def __init__(self, dim: int, temporal: bool, operations: Any) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": operations.Conv2d(dim, dim, 3, stride=2)})
        self.time_conv = operations.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        frames = F.pad(as_images(x), (0, 1, 0, 1))  # the official padding: right and bottom only
        x = as_video(self.resample["1"](frames), x.shape[2])  # [B, C, T, H/2, W/2]
        if self.time_conv is None:
            return x
        past = stream.past(self) if stream is not None else None
        if stream is not None:
            stream.remember(self, x[:, :, -1:])
        if past is not None:
            return self.time_conv(torch.cat((past, x), dim=2))
        if x.shape[2] == 1:
            return x
        return torch.cat((x[:, :, :1], self.time_conv(x)), dim=2)


class Upsample(nn.Module):
    """Double height and width (and halve channels), and time too if ``temporal``.

    The clip's first latent frame becomes one frame; every later one becomes two. Its history counts from the second
    frame on: the first is never seen by ``time_conv`` (the marker ``'Rep'`` of the official code).
    """

    def __init__(self, dim: int, temporal: bool, operations: Any) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": operations.Conv2d(dim, dim // 2, 3, padding=1)})
        self.time_conv = operations.Conv3d(dim, dim * 2, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        if self.time_conv is not None:
            x = self._double_time(x, stream)
        frames = F.interpolate(as_images(x), scale_factor=2.0, mode="nearest-exact")
        return as_video(self.resample["1"](frames), x.shape[2])

    def _double_time(self, x: Tensor, stream: Stream | None) -> Tensor:
        started = stream is not None and stream.past(self) is not None
        if stream is not None and not started:
            stream.remember(self, x.new_empty(0))  # only the fact that the clip has started
        head, rest = (x[:, :, :0], x) if started else (x[:, :, :1], x[:, :, 1:])
        if rest.shape[2] == 0:
            return head
        doubled = causal_conv(self.time_conv, rest, stream)  # [B, 2*C, T', H, W]
        batch, channels, frames, height, width = rest.shape
        doubled = doubled.unflatten(1, (2, channels)).permute(0, 2, 3, 1, 4, 5)  # [B, C, T', 2, H, W]
        doubled = doubled.reshape(batch, channels, frames * 2, height, width)
        doubled = doubled.contiguous(memory_format=torch.channels_last_3d)
        return doubled if started else torch.cat((head, doubled), dim=2)


def as_images(x: Tensor) -> Tensor:
    """``[B, C, T, H, W]`` to ``[B*T, C, H, W]``: a view in channels-last memory."""
    return x.transpose(1, 2).flatten(0, 1)


def as_video(x: Tensor, frames: int) -> Tensor:
    """``[B*T, C, H, W]`` back to ``[B, C, T, H, W]``."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)
