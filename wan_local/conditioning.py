"""What the transformer is told about the two pictures: which frames are known, and their latents.

Official: the preparation of ``msk`` and ``y`` in Wan-Video/Wan2.1 ``wan/first_last_frame2video.py``. Two things are
put right here: the mask follows the length (the official one is always 81 frames long), and a last picture of
another size is resized before it is cropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError, NumericError
from .images import AnyImage, Fit, fit_image, to_tensor
from .progress import OnProgress, ignore
from .shapes import TEMPORAL_STRIDE, Grid, video_frames
from .vae import Autoencoder

__all__ = ["check_room", "first_last", "fit_image", "known_clip", "known_mask"]


def known_mask(grid: Grid) -> Tensor:
    """Which video frames are given: 1 where known, 0 where the model must invent.

    The channels of a latent frame stand for its four video frames. The first latent frame has only one, so frame 0
    fills all four: the mask reads [1, 1, 1, 1], zeros, [0, 0, 0, 1]. A clip of one frame is all known.

    Returns:
        ``[1, 4, T, h, w]`` float32.
    """
    latent_frames, height, width = grid.latent_shape
    frames = torch.zeros(grid.frames)
    frames[0] = frames[-1] = 1.0
    groups = torch.cat([frames[:1].expand(TEMPORAL_STRIDE), frames[1:]])  # [4 T]
    mask = groups.view(latent_frames, TEMPORAL_STRIDE).t()  # [4, T]
    shape = (1, TEMPORAL_STRIDE, latent_frames, height, width)
    return mask[None, :, :, None, None].expand(shape).contiguous()


def known_clip(first: AnyImage, last: AnyImage, grid: Grid, fit: Fit = "crop") -> Tensor:
    """The clip that the VAE encodes: both pictures, and mid grey (0) for every unknown frame.

    Returns:
        ``[1, 3, F, H, W]`` float32, -1..1 but for the overshoot of the resize.
    """
    check_room(grid.frames)
    clip = torch.zeros(1, 3, grid.frames, grid.height, grid.width)
    for index, name, image in ((0, "first", first), (-1, "last", last)):
        clip[0, :, index] = fit_image(to_tensor(image, name), grid.width, grid.height, fit) * 2.0 - 1.0
    return clip


@torch.no_grad()
def first_last(
    vae: Autoencoder,
    first: AnyImage,
    last: AnyImage,
    grid: Grid,
    *,
    fit: Fit = "crop",
    on_progress: OnProgress = ignore,
) -> Tensor:
    """The image condition ``y`` of the transformer.

    Args:
        vae: what encodes the clip, in float32.
        first: first picture, any size, see :func:`wan_local.images.to_tensor`.
        last: last picture, any size.
        grid: size of the clip, at least 5 frames.
        fit: what to do with another aspect, see :func:`wan_local.images.fit_image`.
        on_progress: called after each latent frame that is encoded; may raise to stop.

    Returns:
        ``[1, 4 + z_dim, T, h, w]`` float32 where the VAE leaves its latents: mask first, then normalised latents.

    Raises:
        InputError: an image that is none, or a clip too short for two pictures.
        NumericError: the VAE gave NaN or infinity.
    """
    latents = vae.encode(known_clip(first, last, grid, fit), on_progress).float()
    latents = vae.normalise(latents)  # [1, z_dim, T, h, w]
    if not torch.isfinite(latents).all():
        raise NumericError("the VAE encoded the two images to NaN or infinity; download its weights again")
    return torch.cat([known_mask(grid).to(latents.device), latents], dim=1)


def check_room(frames: int) -> None:
    """Raise :class:`InputError` if the clip is too short to have a first and a last frame."""
    shortest = video_frames(2)
    if frames < shortest:
        raise InputError(f"length={frames} has no room for a first and a last frame; use {shortest} or more, as 4n+1")
