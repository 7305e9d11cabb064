"""One clip in windows that overlap: each step asks for the velocity of every window and takes their weighted mean.

As core's Wan Context Windows in ComfyUI does it, with the schedule "standard_static", the weights "pyramid" and its
causal fix: a window that does not begin the clip sees one latent frame more before it, whose velocity is dropped, since
the model takes the first it sees for a single video frame. The same windows at every step, so that what remembers a
velocity from one step to the next remembers the same thing.

A window sees of the images what lies in it: mask and image latents are cut like the noise, and the image encoder's
embeddings go to the windows that hold the first or the last frame. Windows between see no image, unless a keyframe lies
in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TransformerConfig
from .guidance import Velocity


class Window(NamedTuple):
    """A stretch of a clip, in latent frames, and its part of the image embeddings.

    Attributes:
        begin: the first that the model sees.
        start: the first whose velocity counts: ``begin`` or the one behind it.
        stop: behind the last.
        row, rows: of the embeddings, the first and the one behind the last.
        image_row: the learned position they begin with, if they are one image's of two.
    """

    begin: int
    start: int
    stop: int
    row: int = 0
    rows: int = 0
    image_row: int | None = None


def places(total: int, length: int, overlap: int) -> list[Window]:
    """Windows of ``length`` that cover ``total`` latent frames; the last is moved back to end with the clip."""
    starts = [*range(0, max(total - length, 0), length - overlap), max(total - length, 0)]
    return [Window(begin=max(start - 1, 0), start=start, stop=min(start + length, total)) for start in starts]


def pyramid(length: int) -> Tensor:
    """Weights that rise to the middle of a window and fall again, ``[length]``: 1, 2, 3, 2, 1."""
    place = torch.arange(1, length + 1, dtype=torch.float32)
    return torch.minimum(place, length + 1 - place)


def with_rows(
    window: Window, total: int, config: TransformerConfig, rows: int, image_row: int | None, last_alone: bool
) -> Window:
    """The window with its part of the image embeddings.

    Args:
        window: of a clip of ``total`` latent frames.
        config: of the transformer.
        rows: of the embeddings.
        image_row: of :class:`.cond.Cond`.
        last_alone: whether one image was seen, and it is the last.
    """
    first, last = window.begin == 0, window.stop == total
    if config.images_seen > 1 and image_row is None:  # both
        half = rows // 2
        begin, end = 0 if first else half, rows if last else half
        row = None if first and last else config.row_of(0 if first else 1)
        return window._replace(row=begin, rows=end, image_row=row) if first or last else window
    holds = last if last_alone else first
    return window._replace(rows=rows, image_row=image_row) if holds else window


def fused(parts: Sequence[tuple[Window, Velocity]]) -> Velocity:
    """The velocity of a whole clip out of those of its windows."""

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        total = torch.zeros_like(latents, dtype=torch.float32)
        weight = latents.new_zeros(latents.shape[2], dtype=torch.float32)
        for window, look in parts:
            seen = look(latents[:, :, window.begin : window.stop], timestep)  # [B, C, t, h, w]
            own = pyramid(window.stop - window.start).to(latents.device)
            counted = seen[:, :, window.start - window.begin :].float()
            total[:, :, window.start : window.stop] += counted * own[:, None, None]
            weight[window.start : window.stop] += own
        return total / weight[:, None, None]

    return velocity


def shuffled(noise: Tensor, length: int, overlap: int, seed: int) -> Tensor:
    """FreeNoise (arXiv:2310.15169): behind the first window every frame's noise is that of an earlier one, in another
    order, so that windows begin alike and agree sooner. As core's, number for number.

    Args:
        noise: ``[B, C, T, h, w]`` on the CPU.
        length, overlap: of windows, in latent frames.
        seed: of the order.
    """
    noise, total, step = noise.clone(), noise.shape[2], length - overlap
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, total - length, step):
        place = start + length
        count = min(step, total - place)
        noise[:, :, place : place + count] = noise[:, :, torch.randperm(count, generator=generator) + start]
    return noise
