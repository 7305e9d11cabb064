"""One transformer block, and the head behind the last.

Follows Wan2.1 ``wan/modules/model.py`` (WanAttentionBlock, Head). The tokens ``x`` between blocks, the
modulation and its gates are float32 whatever the weights are; only linears and attention run in
``context.dtype``.

Outside training a block overwrites its tokens, and what is done token by token is done over pieces of them
(``pieces.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention import Attend
from ..config import TransformerConfig
from ..fused import has_rms_norm
from ..operations import BlockLayers
from ..quantised import shared_inputs
from .nag import Nag, away_from
from .norms import (
    layer_norm_float32,
    linear_float32,
    modulated_norm,
    rms_norm,
    without_autocast,
)
from .pieces import add, by_pieces, gelu
from .rope import apply_rope
from .rope_kernel import rope_kernel


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
        attend_tokens: the same for the tokens among themselves, where several GPUs share them; None for ``attend``.
        nag: what the attention to the text keeps away from, mostly None.
    """

    time: Tensor
    text: Tensor
    image: Tensor | None
    rope: Tensor
    dtype: torch.dtype
    attend: Attend
    attend_tokens: Attend | None = None
    nag: Nag | None = None


@dataclass(frozen=True, slots=True)
class Modulation:
    """Shift, scale and gate of one half of a block, each ``[B, 1, D]`` fp32; in this order in the weights."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def enter(self, x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """``[B, L, D]`` fp32 -> the same in ``dtype``: normalised, scaled by ``1 + scale``, shifted."""
        return by_pieces(x, lambda part, _: modulated_norm(part, self.shift, self.scale, eps), dtype)


class SelfAttention(nn.Module):
    """Attention of the video tokens among themselves."""

    def __init__(self, config: TransformerConfig, operations: BlockLayers) -> None:
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

    def project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``[B, L, D]`` -> queries, keys and values ``[B, L, N, K]``, all in ``context.dtype``."""
        with shared_inputs():  # nothing below writes into x
            q = self.rotated(self.q(x), self.norm_q, context)
            k = self.rotated(self.k(x), self.norm_k, context)
            return q, k, self.heads(self.v(x))

    def rotated(self, rows: Tensor, norm: nn.Module, context: Context) -> Tensor:
        """Queries or keys ``[B, L, D]``, which may be overwritten -> ``[B, L, N, K]``, normalised and turned."""
        # The norm spans all heads together and comes before the rotation: the weights were trained so.
        if (turn := rope_kernel(self.heads(rows))) is not None:
            return turn(self.heads(normalised(norm, rows, context.dtype)), context.rope)

        def turned(part: Tensor, piece: slice) -> Tensor:
            return apply_rope(self.heads(rms_norm(norm, part)), context.rope[piece], in_place=True).flatten(2)

        return self.heads(by_pieces(rows, turned, context.dtype, in_place=True))


def normalised(norm: nn.Module, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """RMSNorm of ``[B, L, D]``, which may be overwritten; by pieces where torch makes float32 copies of its input."""
    if has_rms_norm(rows.device):
        return rms_norm(norm, rows).to(dtype)
    return by_pieces(rows, lambda part, _: rms_norm(norm, part), dtype, in_place=True)


class CrossAttention(SelfAttention):
    """Attention of the video tokens to the text embeddings and, apart from them, to the image embeddings.

    Two softmaxes, added before the output layer. No mask: the padding of the text attends, as it did in training.
    """

    def __init__(self, config: TransformerConfig, operations: BlockLayers) -> None:
        super().__init__(config, operations)
        if config.has_image_branch:
            self.k_img = operations.Linear(config.dim, config.dim)
            self.v_img = operations.Linear(config.dim, config.dim)
            self.norm_k_img = operations.RMSNorm(config.dim, eps=config.eps)

    def mix(self, x: Tensor, context: Context) -> Tensor:
        """Tokens ``[B, L, D]`` in ``context.dtype`` -> what they take from text and images, the same."""
        dtype = context.dtype
        q = self.heads(normalised(self.norm_q, self.q(x), dtype))
        out = self.read(q, context.text, context)  # [B, L, N, K]
        if context.nag is not None:
            out = kept_away(out, self.read(q, context.nag.text, context), context.nag.scale)
        if context.image is not None:
            k = self.heads(rms_norm(self.norm_k_img, self.k_img(context.image))).to(dtype)
            out = add(out, context.attend(q, k, self.heads(self.v_img(context.image))))
        return out.flatten(2)

    def read(self, q: Tensor, text: Tensor, context: Context) -> Tensor:
        """What queries ``[B, L, N, K]`` take from text embeddings ``[B, S, D]``, the same shape."""
        k = self.heads(rms_norm(self.norm_k, self.k(text))).to(context.dtype)
        return context.attend(q, k, self.heads(self.v(text)))


def kept_away(out: Tensor, other: Tensor, scale: float) -> Tensor:
    """What was taken from the text, ``[B, L, N, K]`` and overwritten, away from what the negative prompt would give.

    By pieces: float32 copies of both would be several times the tokens. The norm spans all heads of a token.
    """
    rows, against = out.flatten(2), other.flatten(2)

    def moved(part: Tensor, piece: slice) -> Tensor:
        return away_from(part, against[:, piece], scale)

    return by_pieces(rows, moved, out.dtype, in_place=True).view(out.shape)


def starting_modulation(rows: int, dim: int) -> Tensor:
    """What a table of shifts, scales and gates begins with, ``[1, rows, D]``.

    Nothing is drawn on the meta device, where weights are loaded to: torch would import half a compiler for it, 0.4 s
    in each process.
    """
    table = torch.empty(1, rows, dim)
    return table if table.is_meta else table.normal_().mul_(dim**-0.5)


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added to the tokens; time gates first and last."""

    def __init__(self, config: TransformerConfig, operations: BlockLayers) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.self_attn = SelfAttention(config, operations)
        self.norm3 = operations.LayerNorm(dim, eps=config.eps)
        self.cross_attn = CrossAttention(config, operations)
        self.ffn = nn.Sequential(
            operations.Linear(dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),  # keeps the place that the weights' names count; see gelu()
            operations.Linear(config.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(starting_modulation(6, dim))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """``[B, L, D]`` fp32, overwritten unless gradients are wanted -> the same."""
        table = self.modulation.to(context.time) + context.time  # [B, 6, D] fp32
        parts = table.unsqueeze(2).unbind(1)
        attention, feed_forward = Modulation(*parts[:3]), Modulation(*parts[3:])
        dtype = context.dtype

        # Names are given back as soon as may be: each of these is as large as the tokens in `dtype`.
        rows = attention.enter(x, self.eps, dtype)
        q, k, v = self.self_attn.project(rows, context)
        del rows
        mixed = (context.attend_tokens or context.attend)(q, k, v).flatten(2)
        del q, k, v
        x = add(x, self.self_attn.o(mixed), attention.gate)
        del mixed

        rows = by_pieces(x, lambda part, _: layer_norm_float32(self.norm3, part), dtype)
        rows = self.cross_attn.mix(rows, context)
        x = add(x, self.cross_attn.o(rows))
        del rows

        rows = self.ffn[0](feed_forward.enter(x, self.eps, dtype))  # [B, L, F]
        return add(x, self.ffn[2](gelu(rows)), feed_forward.gate)


class Head(nn.Module):
    """Tokens to patches of velocity, in float32 throughout."""

    def __init__(self, config: TransformerConfig, operations: BlockLayers) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = operations.Linear(config.dim, config.out_dim * math.prod(config.patch_size))
        self.modulation = nn.Parameter(starting_modulation(2, config.dim))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``[B, L, D]`` fp32 and ``[B, D]`` fp32 -> ``[B, L, patch cells * out_dim]`` fp32."""
        shift, scale = (self.modulation.to(time) + time.unsqueeze(1)).chunk(2, dim=1)  # [B, 1, D] each
        with without_autocast(x.device):
            return linear_float32(self.head, modulated_norm(x, shift, scale, self.eps))
