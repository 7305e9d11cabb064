"""Into which tiles the VAE's frames are cut: what fits, and what to try after it when memory runs out all the same."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from ..shapes import SPATIAL_STRIDE
from ..vae import Tiling
from .activations import RESERVE, Shape

AUTO, OFF = "auto", "off"
TILES = (96, 64, 48, 32, 16)  # sides in latent cells: 768 to 128 pixels
SMALLEST = TILES[-1]
Tiles = str | int
"""``"auto"``, ``"off"``, or the side of a tile in pixels."""


def check_tiling(tiling: object) -> Tiles:
    """``"auto"``, ``"off"`` or a whole number of pixels from 128, which may come as text; else :class:`InputError`."""
    if isinstance(tiling, str) and tiling.isascii() and tiling.isdecimal():
        tiling = int(tiling)
    if isinstance(tiling, int) and not isinstance(tiling, bool) and tiling >= SMALLEST * SPATIAL_STRIDE:
        return tiling
    if not isinstance(tiling, str) or tiling not in (AUTO, OFF):
        raise InputError(f"tiling={tiling!r} can't be used; use auto, off or the side of a tile from 128 pixels on")
    return tiling


def ways(
    tiling: Tiles | Tiling, shape: Shape, free: int | None, work: Callable[[Shape], int]
) -> tuple[Tiling | None, ...]:
    """Ways to cut the frames of one clip, the first to begin with, each next one for when memory ran out.

    Args:
        tiling: what was asked for. ``"off"`` never cuts; ``"auto"`` begins with the largest that fits.
        shape: of the latents.
        free: bytes to be had on the device, the VAE's own weights already counted off; None where nobody knows.
        work: bytes that coding a frame of some shape takes.

    Returns:
        at least one; None stands for whole frames.
    """
    if tiling == OFF:
        return (None,)
    first = of_side(tiling // SPATIAL_STRIDE) if isinstance(tiling, int) else tiling
    largest = first.tile if isinstance(first, Tiling) else max(shape[1:])
    smaller = [of_side(side) for side in TILES if side < largest]
    if isinstance(first, Tiling):
        return first, *smaller
    whole = [None, *smaller]
    fitting = [way for way in whole if free is None or work(cut(shape, way)) + RESERVE <= free]
    return tuple(whole[whole.index(fitting[0]) :]) if fitting else (whole[-1],)


def cut(shape: Shape, way: Tiling | None) -> Shape:
    """What is in the network at once."""
    return shape if way is None else (shape[0], min(way.tile, shape[1]), min(way.tile, shape[2]))


def of_side(cells: int) -> Tiling:
    """Tiles of that side with a quarter of it in common."""
    return Tiling(tile=cells, overlap=cells // 4)


def told(way: Tiling | None) -> str:
    """A way in words."""
    return "whole frames" if way is None else f"tiles of {way.tile * SPATIAL_STRIDE} pixels"
