"""Normalized attention guidance: the negative prompt inside the attention to the text, for runs at guidance 1.

Chen et al., arXiv 2505.21179. What the tokens take from the prompt is moved away from what they would take from the
negative prompt, and held to a length near the one it had:

    z~ = scale * z+ - (scale - 1) * z-
    z  = alpha * z~ * min(1, tau * |z+| / |z~|) + (1 - alpha) * z+        with |.| the L1 norm of a token

It costs one more small attention in each block, not a second forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TAU, ALPHA = 2.5, 0.25  # published for Wan beside a scale of 11
TINY = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Nag:
    """What is kept away from.

    Attributes:
        text: embeddings of the negative prompt, ``[B, S, text_dim]``; inside the blocks ``[B, S, D]``.
        scale: how far, above 1.
    """

    text: Tensor
    scale: float

    def to(self, device: torch.device | str) -> Nag:
        return replace(self, text=self.text.to(device))

    def expand(self, batch: int) -> Nag:
        """The same for ``batch`` clips."""
        return replace(self, text=self.text.expand(batch, -1, -1))


def away_from(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """What the tokens take from the text under both prompts, ``[B, L, D]`` each, to what they are given of it."""
    z, other = positive.float(), negative.float()
    moved = scale * z - (scale - 1) * other
    length, new_length = (each.abs().sum(-1, keepdim=True).clamp_min(TINY) for each in (z, moved))
    moved = moved * (TAU * length / new_length).clamp_max(1.0)
    return (ALPHA * moved + (1 - ALPHA) * z).to(positive.dtype)
