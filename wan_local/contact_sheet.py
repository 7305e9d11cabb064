"""A clip at one glance: frames in order, each image that was given beside its own, on one PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from .images import fit_image
from .output import check_writable, replacing
from .settings import FIT, Fit
from .video import to_uint8

TILE = 192  # pixels along the longer side of a tile
GAP = 8
LABEL = 14  # pixels of height for the text above a tile
PAPER, INK, INPUT_INK = (24, 24, 24), (220, 220, 220), (120, 200, 255)


def check_path(path: str | PathLike[str]) -> Path:
    """Make sure that the sheet can be written; see :func:`wan_local.output.check_writable`."""
    return check_writable(Path(path))


def write(
    frames: Tensor,
    inputs: Mapping[int, Tensor],
    path: str | PathLike[str],
    *,
    fit: Fit = FIT,
    most: int = 16,
    columns: int = 6,
) -> None:
    """Write the sheet as PNG, whatever the file is called.

    Args:
        frames: ``[F, H, W, 3]`` 0..1.
        inputs: frame, from 0, to the image ``[3, H0, W0]`` 0..1 that was given for it, of any size.
        fit: as given to the pipeline.
        most: at most this many frames, evenly spread, first and last among them, and those of ``inputs``.
        columns: tiles in a row.
    """
    sheet = draw(frames, inputs, fit=fit, most=most, columns=columns)
    with replacing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")


def draw(
    frames: Tensor, inputs: Mapping[int, Tensor], *, fit: Fit = FIT, most: int = 16, columns: int = 6
) -> Image.Image:
    """The sheet as a PIL image; arguments as for :func:`write`."""
    tiles = _tiles(frames, inputs, fit, most)
    height, width = frames.shape[1:3]

    scale = TILE / max(height, width)
    tile_w, tile_h = max(1, round(width * scale)), max(1, round(height * scale))
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    size = GAP + columns * (tile_w + GAP), GAP + rows * (LABEL + tile_h + GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (label, ink, pixels) in enumerate(tiles):
        left = GAP + index % columns * (tile_w + GAP)
        top = GAP + index // columns * (LABEL + tile_h + GAP)
        pen.text((left, top), label, fill=ink)
        # Small frames keep their pixels, so that the sheet flatters nothing.
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        tile = Image.fromarray(to_uint8(pixels).numpy()).resize((tile_w, tile_h), how)
        sheet.paste(tile, (left, top + LABEL))
    return sheet


def _tiles(
    frames: Tensor, inputs: Mapping[int, Tensor], fit: Fit, most: int
) -> list[tuple[str, tuple[int, int, int], Tensor]]:
    """Label, colour of the label and pixels ``[H, W, 3]``: an input before its frame, the last one behind it."""
    last, (height, width) = len(frames) - 1, frames.shape[1:3]
    tiles = []
    for index in sorted({*_spread(len(frames), most), *inputs}):
        pair = [(f"frame {index}", INK, frames[index])]
        if index in inputs:
            name = {0: "first input", last: "last input"}.get(index, f"input {index}")
            image = fit_image(inputs[index], width, height, fit).permute(1, 2, 0)  # [H, W, 3]
            pair.insert(1 if index == last else 0, (name, INPUT_INK, image))
        tiles += pair
    return tiles


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``count``, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]
