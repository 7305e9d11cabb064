"""The temporal memory of one pass over a clip, as an object with a life.

The Wan-VAE is causal in time, so a clip can be coded a few frames at a time if every temporal convolution
remembers the last frames it saw. One :class:`Stream` holds those frames for one clip; drop it and the memory is gone.
The chunks are 1 frame, then 4, 4, 4 ... video frames (1, 1, 1 ... latent frames), as in the official code.

Passing ``None`` instead of a stream means: the whole clip is here at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Stream:
    """What each temporal layer remembers between two chunks of one clip."""

    __slots__ = ("_made", "_past")

    def __init__(self) -> None:
        self._past: dict[nn.Module, Tensor] = {}
        self._made: dict[nn.Module, Tensor] = {}

    def past(self, layer: nn.Module) -> Tensor | None:
        """The frames ``layer`` stored after the previous chunk, or None at the first one.

        They are good until ``layer`` remembers others: those may be written over these.
        """
        return self._past.get(layer)

    def remember(self, layer: nn.Module, frames: Tensor) -> None:
        """Keep a copy of ``frames`` for the next chunk (a view would keep the whole chunk alive)."""
        past = self._past.get(layer)
        if past is None or past.shape != frames.shape or torch.is_grad_enabled():
            self._past[layer] = frames.clone()
        else:
            past.copy_(frames)

    def once(self, layer: nn.Module, make: Callable[[nn.Module], Tensor]) -> Tensor:
        """What ``make`` makes of the weights of ``layer``, made at the first chunk."""
        if layer not in self._made:
            self._made[layer] = make(layer)
        return self._made[layer]
