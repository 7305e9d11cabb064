"""What the transformer is given of the images: which frames are known, their latents, and their embeddings.

Official: the preparation of ``msk`` and ``y`` in Wan-Video/Wan2.1 ``wan/first_last_frame2video.py``. Two things are
put right here: the mask follows the length (the official one is always 81 frames long), and a last image of another
size is resized before it is cropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from .errors import NumericError
from .images import AnyImage, fit_image, to_tensor, view
from .parts import EncodesImages
from .progress import OnProgress, ignore
from .settings import Fit
from .shapes import TEMPORAL_STRIDE, Grid, check_ends
from .vae import Autoencoder

__all__ = ["first_last", "image_embeddings", "known_clip", "known_frames", "known_mask"]

FIRST, LAST = 0, -1
"""Frames of a clip; as in Python, those below 0 count from its end."""


def known_mask(grid: Grid, frames: Collection[int] = (FIRST, LAST)) -> Tensor:
    """Which video frames are given: 1 where known, 0 where the model must invent.

    The channels of a latent frame stand for its four video frames. The first latent frame has only one, so frame 0
    fills all four: with the first and the last known the mask reads [1, 1, 1, 1], zeros, [0, 0, 0, 1].

    Returns:
        ``[1, 4, T, h, w]`` float32.
    """
    latent_frames, height, width = grid.latent_shape
    known = torch.zeros(grid.frames)
    known[list(frames)] = 1.0
    groups = torch.cat([known[:1].expand(TEMPORAL_STRIDE), known[1:]])  # [4 T]
    mask = groups.view(latent_frames, TEMPORAL_STRIDE).t()  # [4, T]
    shape = (1, TEMPORAL_STRIDE, latent_frames, height, width)
    return mask[None, :, :, None, None].expand(shape).contiguous()


def known_clip(images: Mapping[int, Tensor], grid: Grid, fit: Fit = "crop") -> Tensor:
    """The clip that the VAE encodes: the images at their frames, and mid grey (0) for every unknown frame.

    Args:
        images: frame to image ``[3, H0, W0]`` 0..1, of any size.
        grid: size of the clip.
        fit: what to do with another aspect, see :func:`wan_local.images.fit_image`.

    Returns:
        ``[1, 3, F, H, W]`` float32, -1..1 but for the overshoot of the resize.
    """
    clip = torch.zeros(1, 3, grid.frames, grid.height, grid.width)
    for frame, image in images.items():
        clip[0, :, frame] = fit_image(image, grid.width, grid.height, fit) * 2.0 - 1.0
    return clip


@torch.no_grad()
def known_frames(
    vae: Autoencoder,
    images: Mapping[int, Tensor],
    grid: Grid,
    *,
    fit: Fit = "crop",
    on_progress: OnProgress = ignore,
) -> Tensor:
    """The image condition ``y`` of the transformer.

    Args:
        vae: what encodes the clip, in float32.
        images, grid, fit: as for :func:`known_clip`.
        on_progress: called after each latent frame that is encoded; may raise to stop.

    Returns:
        ``[1, 4 + z_dim, T, h, w]`` float32 where the VAE leaves its latents: mask first, then normalised latents.

    Raises:
        NumericError: the VAE gave NaN or infinity.
    """
    latents = vae.normalise(vae.encode(known_clip(images, grid, fit), on_progress).float())  # [1, z_dim, T, h, w]
    if not torch.isfinite(latents).all():
        raise NumericError("the VAE encoded the images to NaN or infinity; download its weights again")
    return torch.cat([known_mask(grid, images.keys()).to(latents.device), latents], dim=1)


@torch.no_grad()
def image_embeddings(encoder: EncodesImages, images: Iterable[Tensor], grid: Grid, fit: Fit = "crop") -> Tensor:
    """What the transformer's image branch reads: the embeddings of the images, one behind the other.

    Args:
        encoder: what encodes them, each at its own resolution.
        images: each ``[3, H0, W0]`` 0..1; for first-last the first image, then the last.
        grid: size of the clip, whose aspect they are seen in.
        fit: what to do with another aspect, see :func:`wan_local.images.view`.

    Returns:
        ``[1, images * tokens, image_dim]``.
    """
    views = [view(image, grid.width, grid.height, fit) * 2.0 - 1.0 for image in images]
    return encoder.encode(views).flatten(0, 1)[None]


def first_last(
    vae: Autoencoder,
    first: AnyImage,
    last: AnyImage,
    grid: Grid,
    *,
    fit: Fit = "crop",
    on_progress: OnProgress = ignore,
) -> Tensor:
    """:func:`known_frames` of a first and a last image, which may be anything that stands for an image.

    Raises:
        InputError: an image that is none, or a clip too short for two images.
        NumericError: as there.
    """
    check_ends(grid.frames)
    images = {FIRST: to_tensor(first, "first image"), LAST: to_tensor(last, "last image")}
    return known_frames(vae, images, grid, fit=fit, on_progress=on_progress)
