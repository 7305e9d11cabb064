"""Which layer classes a network is made of: ``torch.nn``, or others that keep and cast weights their own way.

Any but torch's own must calculate in the dtype of their input, whatever their weights are kept in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

Layer = Callable[..., nn.Module]


class BlockLayers(Protocol):
    """What a transformer block is made of."""

    @property
    def Linear(self) -> Layer: ...  # noqa: N802

    @property
    def LayerNorm(self) -> Layer: ...  # noqa: N802

    @property
    def RMSNorm(self) -> Layer: ...  # noqa: N802


class Operations(BlockLayers, Protocol):
    """What the transformer is made of."""

    @property
    def Conv3d(self) -> Layer: ...  # noqa: N802


class Convolutions(Protocol):
    """What the VAE is made of."""

    @property
    def Conv2d(self) -> Layer: ...  # noqa: N802

    @property
    def Conv3d(self) -> Layer: ...  # noqa: N802
