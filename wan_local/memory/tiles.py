"""A VAE that works in tiles where whole frames don't fit, looking like one that doesn't."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..config import VAEConfig
from ..errors import InputError
from ..shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE, Grid
from ..vae import Tiling, decode_tiled, encode_tiled
from .activations import vae_decode_work, vae_encode_work
from .plan import RESERVE

AUTO, OFF = "auto", "off"
TILES = (96, 64, 48, 32, 16)  # sides in latent cells: 768 to 128 pixels
SMALLEST = 16
Tiles = str | int
"""``"auto"``, ``"off"``, or the side of a tile in pixels."""


def check_tiling(tiling: Any) -> Tiles:
    """``"auto"``, ``"off"`` or a whole number of pixels from 128, which may come as text; else :class:`InputError`."""
    if isinstance(tiling, str) and tiling.isascii() and tiling.isdecimal():
        tiling = int(tiling)
    pixels = isinstance(tiling, int) and not isinstance(tiling, bool) and tiling >= SMALLEST * SPATIAL_STRIDE
    if not pixels and tiling not in (AUTO, OFF):
        raise InputError(f"tiling={tiling!r} can't be used; use auto, off or the side of a tile from 128 pixels on")
    return tiling


def tiling_for(config: VAEConfig, grid: Grid, free: int | None, *, encode: bool) -> Tiling | None:
    """None where whole frames fit into ``free`` bytes, or nobody knows; else the largest tiles that do.

    Args:
        config: of the VAE.
        grid: of the clip.
        free: bytes to be had on the device, the VAE's own weights already counted off.
        encode: for encoding, else for decoding.
    """
    work = vae_encode_work if encode else vae_decode_work
    if free is None or work(config, grid) + RESERVE <= free:
        return None
    for side in TILES:
        pixels = side * SPATIAL_STRIDE
        if pixels < max(grid.height, grid.width):
            tile = Grid(frames=grid.frames, height=min(pixels, grid.height), width=min(pixels, grid.width))
            if work(config, tile) + RESERVE <= free:
                return of_side(side)
    return of_side(SMALLEST)


def of_side(cells: int) -> Tiling:
    """Tiles of that side with a quarter of it in common."""
    return Tiling(tile=cells, overlap=cells // 4)


class TiledVAE:
    """What conditioning and decoding ask of a VAE, in tiles.

    Args:
        vae: :class:`wan_local.vae.WanVAE`.
        tiling: how to cut.
    """

    def __init__(self, vae: Any, tiling: Tiling) -> None:
        self._vae, self.tiling, self.config = vae, tiling, vae.config

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self._vae.parameters()

    def encode(self, video: Tensor) -> Tensor:
        return encode_tiled(self._vae, video, self.tiling)

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        """Frames as :meth:`wan_local.vae.WanVAE.decode_stream` yields them; all tiles are decoded at the first."""
        video = decode_tiled(self._vae, latents, self.tiling)
        yield video[:, :, :1]
        yield from video[:, :, 1:].split(TEMPORAL_STRIDE, dim=2)

    def normalise(self, latents: Tensor) -> Tensor:
        return self._vae.normalise(latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        return self._vae.denormalise(latents)

    def __deepcopy__(self, memo: Any) -> TiledVAE:
        return TiledVAE(copy.deepcopy(self._vae, memo), self.tiling)

    def float(self) -> TiledVAE:
        self._vae.float()
        return self
