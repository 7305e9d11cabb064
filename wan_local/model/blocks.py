"""One transformer block, and the head behind the last.

Follows Wan2.1 ``wan/modules/model.py`` (WanAttentionBlock, Head). The tokens ``x`` between blocks, the
modulation and its gates are float32 whatever the weights are; only linears and attention run in
``context.dtype``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import Attend
from ..config import TransformerConfig
from ..quantised import shared_inputs
from .norms import layer_norm_float32, linear_float32, modulated_norm, rms_norm, without_autocast
from .rope import apply_rope


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What every block reads besides the tokens.

    Attributes:
        time: ``[B, 6, D]`` fp32.
        text: ``[B, S, D]``.
        image: ``[B, rows, D]``, or None in a model without image branch. Never part of ``text``.
        rope: ``[L, 1, K / 2]`` complex64.
        dtype: what linears and attention run in.
        attend: the attention kernel.
        attend_tokens: the same for the tokens among themselves, where they are shared out over several cards; None
            for ``attend``.
    """

    time: Tensor
    text: Tensor
    image: Tensor | None
    rope: Tensor
    dtype: torch.dtype
    attend: Attend
    attend_tokens: Attend | None = None


@dataclass(frozen=True, slots=True)
class Modulation:
    """Shift, scale and gate of one half of a block, each ``[B, 1, D]`` fp32; in this order in the weights."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def enter(self, x: Tensor, eps: float) -> Tensor:
        """``[B, L, D]`` fp32: normalised, scaled by ``1 + scale``, shifted."""
        return modulated_norm(x, self.shift, self.scale, eps)

    def add(self, x: Tensor, update: Tensor) -> Tensor:
        """``x + update * gate``; stays fp32 when the update is not."""
        return torch.addcmul(x, update, self.gate)


class SelfAttention(nn.Module):
    """Attention of the video tokens among themselves."""

    def __init__(self, config: TransformerConfig, operations: Any) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q = operations.Linear(dim, dim)
        self.k = operations.Linear(dim, dim)
        self.v = operations.Linear(dim, dim)
        self.o = operations.Linear(dim, dim)
        self.norm_q = operations.RMSNorm(dim, eps=config.eps)
        self.norm_k = operations.RMSNorm(dim, eps=config.eps)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # [B, L, D] -> [B, L, N, K]

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, L, D]`` in ``context.dtype`` -> the same."""
        # The norm spans all heads together and comes before the rotation: the weights were trained so.
        with shared_inputs():
            q = apply_rope(self.heads(rms_norm(self.norm_q, self.q(x))), context.rope).to(context.dtype)
            k = apply_rope(self.heads(rms_norm(self.norm_k, self.k(x))), context.rope).to(context.dtype)
            v = self.heads(self.v(x))
        return self.o((context.attend_tokens or context.attend)(q, k, v).flatten(2))


class CrossAttention(SelfAttention):
    """Attention of the video tokens to the text rows and, apart from them, to the image rows.

    Two softmaxes, added before the output layer. No mask: padded text rows attend, as they did in training.
    """

    def __init__(self, config: TransformerConfig, operations: Any) -> None:
        super().__init__(config, operations)
        if config.has_image_branch:
            self.k_img = operations.Linear(config.dim, config.dim)
            self.v_img = operations.Linear(config.dim, config.dim)
            self.norm_k_img = operations.RMSNorm(config.dim, eps=config.eps)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, L, D]`` in ``context.dtype`` -> the same."""
        dtype = context.dtype
        q = self.heads(rms_norm(self.norm_q, self.q(x))).to(dtype)
        k = self.heads(rms_norm(self.norm_k, self.k(context.text))).to(dtype)
        out = context.attend(q, k, self.heads(self.v(context.text)))  # [B, L, N, K]
        if context.image is not None:
            k = self.heads(rms_norm(self.norm_k_img, self.k_img(context.image))).to(dtype)
            out = out + context.attend(q, k, self.heads(self.v_img(context.image)))
        return self.o(out.flatten(2))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added to the tokens; time gates first and last."""

    def __init__(self, config: TransformerConfig, operations: Any) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.self_attn = SelfAttention(config, operations)
        self.norm3 = operations.LayerNorm(dim, eps=config.eps)
        self.cross_attn = CrossAttention(config, operations)
        self.ffn = nn.Sequential(
            operations.Linear(dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            operations.Linear(config.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, L, D]`` fp32 -> the same."""
        table = self.modulation.to(context.time) + context.time  # [B, 6, D] fp32
        parts = table.unsqueeze(2).unbind(1)
        attention, feed_forward = Modulation(*parts[:3]), Modulation(*parts[3:])
        dtype = context.dtype  # cast outside the calls, so that no float32 copy lives on during them
        x = attention.add(x, self.self_attn(attention.enter(x, self.eps).to(dtype), context))
        x = x + self.cross_attn(layer_norm_float32(self.norm3, x).to(dtype), context)
        return feed_forward.add(x, self.ffn(feed_forward.enter(x, self.eps).to(dtype)))


class Head(nn.Module):
    """Tokens to patches of velocity, in float32 throughout."""

    def __init__(self, config: TransformerConfig, operations: Any) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = operations.Linear(config.dim, config.out_dim * math.prod(config.patch_size))
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``[B, L, D]`` fp32 and ``[B, D]`` fp32 -> ``[B, L, patch cells * out_dim]`` fp32."""
        shift, scale = (self.modulation.to(time) + time.unsqueeze(1)).chunk(2, dim=1)  # [B, 1, D] each
        with without_autocast(x.device):
            return linear_float32(self.head, modulated_norm(x, shift, scale, self.eps))
