"""The layers the Wan-VAE is made of: residual block, per-frame attention, up- and downsampling.

Official: Wan-Video/Wan2.1 ``wan/modules/vae.py``; the attribute names are the official parameter names.
Tensors are ``[B, C, T, H, W]`` in channels-last memory, which makes "one image per frame" and "channels last" views
instead of copies and is what fast convolutions want.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..operations import Convolutions
from .causal_conv import causal_conv, with_history
from .enlarge import convolve_enlarged
from .layout import as_images, as_video, channels_last
from .norm import ChannelNorm
from .stream import Stream


class ResidualBlock(nn.Module):
    """Two (norm, SiLU, causal 3x3x3 convolution) with a shortcut."""

    def __init__(self, in_dim: int, out_dim: int, operations: Convolutions) -> None:
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
        h = causal_conv(layers["2"], layers["0"](x), stream, silu=True)
        h = causal_conv(layers["6"], layers["3"](h), stream, silu=True)
        return plus(h, self.shortcut(x))


class AttentionBlock(nn.Module):
    """Self-attention within each frame, one head of full width."""

    def __init__(self, dim: int, operations: Convolutions) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = operations.Conv2d(dim, dim * 3, 1)
        self.proj = operations.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        frames = as_images(self.norm(x))  # [B*T, C, H, W]
        qkv = rearrange(self.to_qkv(frames), "b c h w -> b 1 (h w) c")
        # Each for itself and dense: fused kernels refuse a last axis with strides.
        q, k, v = (part.contiguous() for part in qkv.chunk(3, dim=-1))  # [B*T, 1, H*W, C] each
        out = F.scaled_dot_product_attention(q, k, v)
        out = channels_last(rearrange(out, "b 1 (h w) c -> b c h w", h=frames.shape[2]))
        return plus(as_video(self.proj(out), x.shape[2]), x)


class Downsample(nn.Module):
    """Halve height and width, and time too if ``temporal``. The clip's first frame passes time unchanged."""

    def __init__(self, dim: int, temporal: bool, operations: Convolutions) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": operations.Conv2d(dim, dim, 3, stride=2)})
        self.time_conv = operations.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        frames = F.pad(as_images(x), (0, 1, 0, 1))  # the official padding: right and bottom only
        x = as_video(self.resample["1"](frames), x.shape[2])  # [B, C, T, H/2, W/2]
        if self.time_conv is None:
            return x
        past = stream.past(self) if stream is not None else None
        whole = x if past is None else with_history(past, x, 1)
        if stream is not None:
            stream.remember(self, x[:, :, -1:])
        if past is not None:
            return self.time_conv(whole)
        if x.shape[2] == 1:
            return x
        return torch.cat((x[:, :, :1], self.time_conv(x)), dim=2)


class Upsample(nn.Module):
    """Double height and width (and halve channels), and time too if ``temporal``.

    The clip's first latent frame becomes one frame; every later one becomes two. Its history counts from the second
    frame on: the first is never seen by ``time_conv`` (the marker ``'Rep'`` of the official code).
    """

    def __init__(self, dim: int, temporal: bool, operations: Convolutions) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": operations.Conv2d(dim, dim // 2, 3, padding=1)})
        self.time_conv = operations.Conv3d(dim, dim * 2, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        if self.time_conv is not None:
            x = self._double_time(x, stream)
        frames = convolve_enlarged(self.resample["1"], x)
        return as_video(frames, frames.shape[0] // x.shape[0])

    def _double_time(self, x: Tensor, stream: Stream | None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C, T', H, W]``, or ``[B, C, T, 2, H, W]`` where every frame becomes two."""
        started = stream is not None and stream.past(self) is not None
        if stream is not None and not started:
            stream.remember(self, x.new_empty(0))  # only the fact that the clip has started
        head, rest = (x[:, :, :0], x) if started else (x[:, :, :1], x[:, :, 1:])
        if rest.shape[2] == 0:
            return head
        doubled = causal_conv(self.time_conv, rest, stream)  # [B, 2*C, T, H, W]
        doubled = rearrange(doubled, "b (n c) t h w -> b c t n h w", n=2)  # a view
        return doubled if started else torch.cat((head, rearrange(doubled, "b c t n h w -> b c (t n) h w")), dim=2)


def plus(fresh: Tensor, x: Tensor) -> Tensor:
    """``fresh + x``, written over ``fresh`` where nobody will ask for gradients."""
    return fresh + x if torch.is_grad_enabled() else fresh.add_(x)
