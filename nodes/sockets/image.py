"""IMAGE: ``[B, H, W, C]`` in 0..1, float32 or float16, and the library's images and clips, channels first in -1..1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...wan_local.errors import InputError
from ...wan_local.images import to_tensor
from .. import host

RGB = 3


def one_image(image: Tensor, name: str) -> Tensor:
    """One image ``[3, H, W]`` float32 in 0..1 from an IMAGE.

    A batch gives its first image, and the log says so. Values outside 0..1, which resizing nodes leave
    behind, are clamped. Grey and transparency are the library's to settle
    (:func:`wan_local.images.to_tensor`).

    Args:
        image: ``[B, H, W, C]`` with 1, 3 or 4 channels.
        name: of the input, for messages.

    Raises:
        InputError: not an IMAGE, or one with values that are no numbers.
    """
    _check(image, name)
    if image.shape[0] > 1:
        host.log.warning("%s is a batch of %d images; the first one is used", name, image.shape[0])
    return _library_image(image[0], name)


def all_images(image: Tensor, name: str) -> Tensor:
    """All of an IMAGE, ``[N, 3, H, W]``; as :func:`one_image`."""
    _check(image, name)
    return torch.stack([_library_image(each, name) for each in image])


def frames_of_clip(images: Tensor, name: str) -> Tensor:
    """All of an IMAGE as frames ``[F, H, W, 3]``; grey is repeated and transparency laid over black, frame by frame."""
    _check(images, name)
    if images.shape[-1] == RGB:
        return images
    return all_images(images, name).movedim(1, -1)


def _check(image: Tensor, name: str) -> None:
    if image.ndim != 4 or 0 in image.shape:
        raise InputError(f"{name} has shape {list(image.shape)}; connect an IMAGE, [batch, height, width, 3]")


def _library_image(image: Tensor, name: str) -> Tensor:
    return to_tensor(image.movedim(-1, 0).float().clamp(0.0, 1.0), name)


def from_one_image(image: Tensor) -> Tensor:
    """IMAGE ``[1, H, W, 3]`` in 0..1 from one image ``[3, H, W]`` in -1..1."""
    return image.movedim(0, -1).unsqueeze(0).add(1.0).div(2.0)


def to_images(images: Tensor) -> Tensor:
    """``[B, 3, H, W]`` float32 in -1..1 from IMAGE ``[B, H, W, C]``."""
    return images[..., :RGB].movedim(-1, 1).float().mul(2.0).sub(1.0)


def centre_square(images: Tensor) -> Tensor:
    """The largest centred square of ``[B, H, W, C]``."""
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def from_clips(clips: Tensor) -> Tensor:
    """IMAGE, one a clip, ``[B, F, H, W, 3]`` in 0..1 from ``[B, 3, F, H, W]`` in -1..1."""
    return clips.movedim(1, -1).add(1.0).div_(2.0).clamp_(0.0, 1.0)


def to_clips(images: Tensor) -> Tensor:
    """Clips ``[B, 3, F, H, W]`` in -1..1 from IMAGE ``[F, H, W, C]`` or ``[B, F, H, W, C]``."""
    clips = images if images.ndim == 5 else images.unsqueeze(0)
    return clips[..., :RGB].movedim(-1, 1).mul(2.0).sub(1.0)


def whole_pixels(images: Tensor) -> Tensor:
    """IMAGE ``[..., n*H, n*W, 3]`` from ``[..., H, W, 3*n*n]``, which core's VAE gives of a decoder that upscales.

    The channels of a pixel are then the colours of its ``n`` x ``n`` neighbours. Other images stay as they are.
    """
    channels = images.shape[-1]
    upscale = math.isqrt(channels // RGB)
    if upscale < 2 or channels != RGB * upscale**2:
        return images
    pixels = F.pixel_shuffle(images.flatten(0, -4).movedim(-1, 1), upscale).movedim(1, -1)
    return pixels.unflatten(0, images.shape[:-3])


def whole_chunks(images: Tensor, stride: int, chunk: int) -> Tensor:
    """Crop ``[..., F, H, W, C]`` to what the VAE takes: sides in steps of ``stride``, frames 1 + n ``chunk``.

    This is what core's VAE does to what it encodes; sides lose equally at both ends, frames at the end.
    """
    frames, height, width = images.shape[-4:-1]
    kept = (frames - 1) // chunk * chunk + 1
    top, left = height % stride // 2, width % stride // 2
    rows, columns = height - height % stride, width - width % stride
    return images[..., :kept, top : top + rows, left : left + columns, :]
