"""What conditioning and decoding ask of a VAE, wherever its weights are and whoever moves them.

:class:`wan_local.memory.FittingVAE` gives it for a :class:`WanVAE`; a host gives its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from ..config import VAEConfig
from ..progress import OnProgress, ignore


class Autoencoder(Protocol):
    """Clips to latents and back. In which dtype, on which device and in which tiles is its own affair."""

    @property
    def config(self) -> VAEConfig:
        """Sizes of the network, and the statistics of its latents."""

    def encode(self, clip: Tensor, on_progress: OnProgress = ignore) -> Tensor:
        """Encode in float32, whatever the weights are stored in: half precision would move the sampler's whole path.

        Args:
            clip: ``[B, 3, F, H, W]`` in -1..1, on any device.
            on_progress: called after each latent frame (of each tile); may raise to stop. Carries a note when a try
                failed and the next one begins.

        Returns:
            raw latents ``[B, z_dim, T, h, w]``, where they were made.

        Raises:
            OutOfMemory: not even the smallest tiles fit.
        """

    def decode_stream(self, latents: Tensor, on_progress: OnProgress = ignore) -> Iterator[Tensor]:
        """Decode a few frames at a time.

        Args:
            latents: raw, ``[B, z_dim, T, h, w]``, of any dtype and on any device.
            on_progress: as above.

        Yields:
            chunks ``[B, 3, n, H, W]`` float32 in -1..1, in order, each frame once; where they are made, or on the CPU
            where tiles were put together.

        Raises:
            OutOfMemory: not even the smallest tiles fit.
        """

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents to model space."""

    def denormalise(self, latents: Tensor) -> Tensor:
        """Model space to raw latents."""
