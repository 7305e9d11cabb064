"""Spatial tiles with blended overlaps, for GPUs too small for a whole frame. Time is streamed, never tiled.

Tiling in time would cut the causal history and flash at every cut; the stream bounds memory in time already. A tile
does not see beyond its edge, so results differ from the whole frame's near seams and, through the attention in the
middle of the network, a little everywhere: tiles are a last resort, not a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..progress import OnProgress, Progress, ignore
from ..shapes import SPATIAL_STRIDE, latent_frames, video_frames
from .coders import RGB
from .vae import WanVAE


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How to cut a frame, in latent cells (one cell is 8 x 8 pixels that are encoded).

    Args:
        tile: side of a tile, at least 2.
        overlap: cells that neighbours share and blend linearly, ``0 <= overlap <= tile / 2``.
    """

    tile: int = 32
    overlap: int = 8

    def __post_init__(self) -> None:
        if self.tile < 2:
            raise InputError(f"tile={self.tile} is smaller than 2 latent cells; use 32 (256 pixels) or more")
        if not 0 <= self.overlap <= self.tile // 2:
            raise InputError(f"overlap={self.overlap} is not in 0..{self.tile // 2} for tile={self.tile}")

    def spans(self, side: int) -> list[tuple[int, int]]:
        """Start and end of the tiles along a side of ``side`` cells; the last one ends with the side."""
        if side <= self.tile:
            return [(0, side)]
        step = self.tile - self.overlap
        starts = [*range(0, side - self.tile, step), side - self.tile]
        return [(start, start + self.tile) for start in starts]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tile:
    cells: tuple[slice, slice]  # rows and columns in the latents
    weight: Tensor  # [height, width], in the unit of what is being put together


def decode_tiled(
    vae: WanVAE, latents: Tensor, tiling: Tiling | None = None, on_progress: OnProgress = ignore
) -> Iterator[Tensor]:
    """As :meth:`WanVAE.decode_stream`, but never with more than one tile in the network.

    Tile after tile, each through the whole clip: what has been decoded of the others waits in host memory, a clip in
    float32. Frames come while the last tile is decoded. The other order, all tiles of one moment after each other,
    would keep a stream for every tile, and streams are most of what decoding takes: 8.7 of 15.1 GB for whole frames
    of 1280x720 in float32, and 1.8 times that for tiles that share a quarter of their side, more than no tiles at all.

    Args:
        vae: the autoencoder.
        latents: raw latents ``[B, z_dim, T, h, w]``.
        tiling: how to cut; 256-pixel tiles with 64 pixels of overlap by default.
        on_progress: called after each latent frame of each tile; may raise to stop.

    Yields:
        ``[B, 3, 1, H, W]`` first, then ``[B, 3, 4, H, W]``, in -1..1, float32, on the CPU.
    """
    batch, _, frames, height, width = latents.shape
    scale = vae.output_stride
    video = torch.zeros(batch, RGB, video_frames(frames), height * scale, width * scale)
    tiles = list(_tiles(tiling or Tiling(), height, width, scale=scale))
    for index, tile in enumerate(tiles):
        rows, columns = (slice(span.start * scale, span.stop * scale) for span in tile.cells)
        weight, at = tile.weight.to(latents.device), 0
        for done, chunk in enumerate(vae.decode_stream(latents[(..., *tile.cells)]), start=index * frames + 1):
            whole = video[:, :, at : at + chunk.shape[2]]
            whole[..., rows, columns] += (chunk.float() * weight).cpu()
            at += chunk.shape[2]
            on_progress(Progress(stage="decode", done=done, total=len(tiles) * frames))
            if index == len(tiles) - 1:
                yield whole


def encode_tiled(vae: WanVAE, video: Tensor, tiling: Tiling | None = None, on_progress: OnProgress = ignore) -> Tensor:
    """As :meth:`WanVAE.encode`, but never with more than one tile in the network; same arguments as above.

    Args:
        vae: the autoencoder.
        video: ``[B, 3, F, H, W]`` in -1..1.
        tiling: how to cut.
        on_progress: called after each latent frame of each tile; may raise to stop.

    Returns:
        raw latents ``[B, z_dim, T, h, w]`` on the device of ``video``.
    """
    batch, _, frames, height, width = video.shape
    cells, total = (height // SPATIAL_STRIDE, width // SPATIAL_STRIDE), latent_frames(frames)
    latents = video.new_zeros((batch, vae.config.z_dim, total, *cells))
    tiles = list(_tiles(tiling or Tiling(), *cells, scale=1))
    for index, tile in enumerate(tiles):
        rows, columns = (slice(span.start * SPATIAL_STRIDE, span.stop * SPATIAL_STRIDE) for span in tile.cells)
        weight = tile.weight.to(latents)
        for at, latent in enumerate(vae.encode_stream(video[..., rows, columns])):
            latents[:, :, at : at + 1, tile.cells[0], tile.cells[1]] += latent * weight
            on_progress(Progress(stage="encode images", done=index * total + at + 1, total=len(tiles) * total))
    return latents


def _tiles(tiling: Tiling, height: int, width: int, *, scale: int) -> Iterator[_Tile]:
    """All tiles of a frame of ``height`` x ``width`` cells, with weights of ``scale`` values a cell."""
    row_spans, column_spans = tiling.spans(height), tiling.spans(width)
    for rows, down in zip(row_spans, _ramps(row_spans, scale), strict=True):
        for columns, across in zip(column_spans, _ramps(column_spans, scale), strict=True):
            yield _Tile(cells=(slice(*rows), slice(*columns)), weight=down[:, None] * across[None, :])


def _ramps(spans: list[tuple[int, int]], scale: int) -> list[Tensor]:
    """Weights of each tile along one axis: they rise and fall over the overlaps and add up to 1 everywhere."""
    tents = []
    for index, (start, end) in enumerate(spans):
        x = torch.arange(start * scale, end * scale) + 0.5
        tent = torch.ones_like(x)
        if index > 0 and (overlap := (spans[index - 1][1] - start) * scale):
            tent = tent * ((x - start * scale) / overlap).clamp(max=1.0)
        if index + 1 < len(spans) and (overlap := (end - spans[index + 1][0]) * scale):
            tent = tent * ((end * scale - x) / overlap).clamp(max=1.0)
        tents.append(tent)
    # The last tile is moved back to end with the side, so three tiles may meet: divide by what they add up to.
    total = torch.zeros(spans[-1][1] * scale)
    for (start, end), tent in zip(spans, tents, strict=True):
        total[start * scale : end * scale] += tent
    return [tent / total[s * scale : e * scale] for (s, e), tent in zip(spans, tents, strict=True)]
