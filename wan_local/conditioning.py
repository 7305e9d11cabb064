"""What the transformer is given of the images: which frames are known, their latents, and their embeddings.

Official: the preparation of ``msk`` and ``y`` in Wan-Video/Wan2.1 ``wan/first_last_frame2video.py``. Two things are
put right here: the mask follows the length (the official one is always 81 frames long), and a last image of another
size is resized before it is cropped. An image in the middle is marked as the last one is, in its own channel alone:
that says what is true, for the other three frames of its latent frame are grey.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import NumericError
from .images import fit_image, view
from .keyframes import FIRST, FULL, LAST, Keyframe, strengths
from .motion import amplified
from .notices import tell
from .parts import EncodesImages
from .progress import OnProgress, ignore
from .settings import FIT, STILL, Fit
from .shapes import TEMPORAL_STRIDE, Grid, latent_frame
from .vae import Autoencoder
from .weights.experts import HIGH, LOW

__all__ = ["Conditions", "conditions", "ends_seen", "image_embeddings", "known_clip", "known_frames", "known_mask"]


def known_mask(
    grid: Grid, frames: Collection[int] | Mapping[int, float] = (FIRST, LAST), whole_groups: Collection[int] = ()
) -> Tensor:
    """Which video frames are given: 1 where known, 0 where the model must invent, between where a strength says so.

    The channels of a latent frame stand for its four video frames. The first latent frame has only one, so frame 0
    fills all four: with the first and the last known the mask reads [1, 1, 1, 1], zeros, [0, 0, 0, 1].

    Args:
        grid: size of the clip.
        frames: which, and how strictly if not wholly; those below 0 count from the end.
        whole_groups: those of ``frames``, from 0, that mark all four channels of their latent frame.

    Returns:
        ``[1, 4, T, h, w]`` float32.
    """
    latent_frames, height, width = grid.latent_shape
    known = torch.zeros(grid.frames)
    for frame in frames:
        known[frame] = frames[frame] if isinstance(frames, Mapping) else FULL
    groups = torch.cat([known[:1].expand(TEMPORAL_STRIDE), known[1:]])  # [4 T]
    mask = groups.view(latent_frames, TEMPORAL_STRIDE).t().contiguous()  # [4, T]
    for frame in whole_groups:
        mask[:, latent_frame(frame)] = known[frame]
    shape = (1, TEMPORAL_STRIDE, latent_frames, height, width)
    return mask[None, :, :, None, None].expand(shape).contiguous()


def known_clip(images: Mapping[int, Tensor], grid: Grid, fit: Fit = FIT) -> Tensor:
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
    fit: Fit = FIT,
    on_progress: OnProgress = ignore,
) -> Tensor:
    """The latents of what is known, without their mask.

    Args:
        vae: what encodes the clip, in float32.
        images, grid, fit: as for :func:`known_clip`.
        on_progress: called after each latent frame that is encoded; may raise to stop.

    Returns:
        ``[1, z_dim, T, h, w]`` float32, normalised, where the VAE leaves its latents.

    Raises:
        NumericError: the VAE gave NaN or infinity.
    """
    latents = vae.normalise(vae.encode(known_clip(images, grid, fit), on_progress).float())
    if not torch.isfinite(latents).all():
        raise NumericError("the VAE encoded the images to NaN or infinity; download its weights again")
    return latents


@torch.no_grad()
def image_embeddings(encoder: EncodesImages, images: Iterable[Tensor], grid: Grid, fit: Fit = FIT) -> Tensor:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The image condition ``y`` of a run.

    Attributes:
        each: ``[1, 4 + z_dim, T, h, w]`` float32, mask first, then latents: of the model, or the high-noise expert.
        low: the same of the low-noise expert; None where it is no other.
    """

    each: Tensor
    low: Tensor | None = None


def conditions(
    vae: Autoencoder,
    keyframes: Mapping[int, Keyframe],
    grid: Grid,
    *,
    fit: Fit = FIT,
    motion: float = STILL,
    on_progress: OnProgress = ignore,
) -> Conditions:
    """What the models of a run are given of the images.

    A strength is what the mask says there, of 0..1. An image of strength 0 is not in the clip that is encoded either,
    so where an image counts for one of two experts only, there are two encodes.

    Args:
        vae, grid, fit, on_progress: as for :func:`known_frames`.
        keyframes: of :func:`wan_local.keyframes.placed`.
        motion: amplitude, see :func:`wan_local.motion.amplified`; it acts between two images.

    Raises:
        NumericError: the VAE gave NaN or infinity.
    """
    if motion != STILL and max(len(strengths(keyframes, level)) for level in (HIGH, LOW)) < 2:
        tell(f"motion={motion:g} acts between two images, and one is given; it changes nothing")
    latents: dict[tuple[int, ...], Tensor] = {}

    def condition(level: str) -> Tensor:
        known = strengths(keyframes, level)
        frames = tuple(known)
        if frames not in latents:
            images = {frame: keyframes[frame].images[0] for frame in frames}
            encoded = known_frames(vae, images, grid, fit=fit, on_progress=on_progress)
            latents[frames] = amplified(encoded, {latent_frame(frame) for frame in frames}, motion)
        middle = [frame for frame in frames if keyframes[frame].whole_group and 0 < frame < grid.frames - 1]
        return torch.cat([known_mask(grid, known, middle).to(latents[frames].device), latents[frames]], dim=1)

    same = strengths(keyframes, HIGH) == strengths(keyframes, LOW)
    return Conditions(each=condition(HIGH), low=None if same else condition(LOW))


def ends_seen(keyframes: Mapping[int, Keyframe], grid: Grid, seen: int) -> tuple[list[Tensor], int]:
    """The images that the image encoder sees: the first and the last of the clip, as far as they are given.

    Models without learned positions were trained with the first image's embeddings alone; they get the last's where
    there is no first. One of strength 0 is not seen: it is as if it were not given.

    Args:
        keyframes: of :func:`wan_local.keyframes.placed`.
        grid: size of the clip.
        seen: how many images the model sees, see :attr:`wan_local.config.TransformerConfig.images_seen`.

    Returns:
        images ``[3, H0, W0]`` 0..1, and which of the two the first of them is: 0 or 1.
    """
    counted = strengths(keyframes)
    given = [keyframes[frame] if frame in counted else None for frame in (0, grid.frames - 1)]
    images = [each.images[0] for each in given if each is not None]
    return images[:seen], 1 if given[0] is None else 0
