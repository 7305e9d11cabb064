"""Images in: from a file, a PIL image or a tensor to ``[3, H, W]`` 0..1, and from there to the size of the clip.

Colour values are taken as they are (sRGB, as all training data); an embedded colour profile is not applied.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError
from .image_kinds import open_image, readable
from .settings import FIT, Fit, check_fit

AnyImage = str | PathLike[str] | Image.Image | Tensor | np.ndarray

MAX_PIXELS = 100_000_000  # 1.2 GB as float32; 8192 x 8192 is 67 million
MAX_GROWTH = 4  # a strip whose cover would be this many times the target along one side is cropped first
ANTIALIAS_ABOVE = 2.0  # shrinking by more than this, four taps skip source pixels
RANGE_SLACK = 0.25  # resized images overshoot 0..1 at hard edges; -1..1 goes further below

RANGES = (1.0, 255.0, 65535.0)  # that an image of 32-bit pixels may have; its file does not say which
DARKEST = 0.1  # of its range, what the largest value must reach for the range to be told by it
WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")  # modes of Pillow

BLACK = (0.0, 0.0, 0.0)


def read(path: str | PathLike[str], background: tuple[float, float, float] = BLACK) -> Tensor:
    """Read an image file of one of the kinds in ``image_kinds.py``.

    EXIF rotation is applied. Transparency is laid over ``background`` (0..1, black unless told otherwise: the colour
    of ``fit="pad"`` and of an empty video). Grey, palette, 16-bit grey and CMYK become RGB; of an animation the
    first image is taken. 32-bit grey is read by its largest value, see :func:`from_pil`.

    Returns:
        ``[3, H, W]`` float32 0..1.

    Raises:
        InputError: missing, unreadable or too large, naming the path.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is checked below
            with open_image(path, partial(_check_pixels, path)) as image:
                wide = image.format == "TIFF" and image.mode == "I"  # of other files it holds 16-bit pixels
                upright = _upright(image)
                return _of_range(upright, str(path)) if wide or image.mode == "F" else from_pil(upright, background)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there; check the path of the image") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name an image file") from error
    except PermissionError as error:
        raise InputError(f"{path} can't be read: no permission; change it or copy the image") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels; at most {MAX_PIXELS:,} are read, resize it first") from error
    # Broken files make Pillow raise nearly anything, from SyntaxError to struct.error.
    except Exception as error:
        reason = _one_line(error)
        raise InputError(f"{path} can't be read as an image ({reason}); read are {readable()}") from error


def from_pil(image: Image.Image, background: tuple[float, float, float] = BLACK) -> Tensor:
    """A PIL image of any mode to ``[3, H, W]`` float32 0..1, transparency laid over ``background``.

    Float pixels are taken as 0..1, 0..255 or 0..65535, whichever their largest value is near to: up to a quarter above
    it, and for the latter two at least a tenth of it. Integer pixels are 0..65535.

    Raises:
        InputError: float pixels whose range can't be told.
    """
    if image.mode == "F":
        return _of_range(image, "image")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 65535.0  # [H, W]; all integer modes hold 16-bit images
        return torch.from_numpy(grey).clamp(0.0, 1.0).expand(3, -1, -1).contiguous()
    mode = "RGBA" if image.mode in WITH_ALPHA or "transparency" in image.info else "RGB"
    pixels = np.asarray(image.convert(mode)).copy()  # [H, W, 3 or 4]
    return _over(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0, background)


def _upright(image: Image.Image) -> Image.Image:
    """As its EXIF says."""
    image.load()
    return image if image.format == "TIFF" else ImageOps.exif_transpose(image)  # TIFFs are, once loaded


def _of_range(image: Image.Image, name: str) -> Tensor:
    """Grey of 32 bits, integer or float, in the range that its largest value is near to."""
    grey = torch.from_numpy(np.asarray(image).astype(np.float32))  # [H, W]
    low, high = float(grey.min()), float(grey.max())
    integer = image.mode == "I"
    ranges, slack = (RANGES[1:], 0.0) if integer else (RANGES, RANGE_SLACK)
    full = next((full for full in ranges if high <= full * (1 + slack)), math.nan)
    if (full == ranges[0] or high >= full * DARKEST) and low >= -slack * full:  # false for NaN
        return (grey / full).clamp(0.0, 1.0).expand(3, -1, -1).contiguous()
    kind = "integer" if integer else "float"
    raise InputError(
        f"{name} has 32-bit {kind} pixels {low:.4g}..{high:.4g}, which could be of any range; save it with "
        f"{'' if integer else '0..1, '}0..255 or 0..65535, or as 8 or 16 bit"
    )


def to_tensor(image: AnyImage, name: str = "image") -> Tensor:
    """Anything that stands for one image to ``[3, H, W]`` float32 0..1 on the CPU.

    Args:
        image: a path; a PIL image, turned as its EXIF says; a tensor or array ``[3, H, W]``, ``[H, W, 3]`` or with a
            leading 1; 1 channel is grey, 4 are RGBA; 0..255 where the type is uint8, else 0..1.
        name: how messages call it.

    Raises:
        InputError: another type, shape or range.
    """
    if isinstance(image, Image.Image):
        return from_pil(_upright(image))
    if isinstance(image, str | PathLike):
        return read(image)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
    if not isinstance(image, Tensor):
        raise InputError(f"{name} is a {type(image).__name__}; give a path, a PIL image or a tensor [3, H, W] 0..1")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise InputError(f"{name} has dtype {image.dtype}; use uint8 0..255 or floats 0..1")
    scale = 255.0 if image.dtype == torch.uint8 else 1.0
    pixels = _channels_first(image, name).detach().to("cpu", torch.float32) / scale
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # written so that NaN fails too
        raise InputError(f"{name} has values {low:.3g}..{high:.3g}; give floats 0..1 (from -1..1: (x + 1) / 2)")
    return _over(pixels.clamp(0.0, 1.0), BLACK)


def fit_image(image: Tensor, width: int, height: int, fit: Fit = FIT) -> Tensor:
    """Bring an image to ``width`` x ``height``.

    The kernel is the official one: bicubic, a = -0.75, no antialias
    (Wan-Video/Wan2.1 ``wan/first_last_frame2video.py``); as there, hard edges overshoot 0..1 a little. Only a
    image that shrinks by more than 2 is antialiased, since four taps would skip pixels and shimmer.

    Args:
        image: ``[3, H, W]``, of :func:`to_tensor`.
        fit: ``"crop"`` covers the target and cuts the overhang evenly; ``"pad"`` fits inside and fills with black;
            ``"stretch"`` gives up the aspect, as the official code does by a little.

    Returns:
        ``[3, height, width]`` float32.
    """
    check_fit(fit)
    if fit == "stretch":
        return resize(image, width, height)
    if fit == "crop":
        return _cover(image, width, height)
    scale = min(width / image.shape[2], height / image.shape[1])
    inner = (min(width, _side(image.shape[2] * scale)), min(height, _side(image.shape[1] * scale)))
    return _centred(resize(image, *inner), width, height)


def view(image: Tensor, width: int, height: int, fit: Fit = FIT) -> Tensor:
    """What :func:`fit_image` shows of the image ``[3, H, W]``, at the image's own resolution.

    This is for the image encoder, which the official code gives each image before it is resized for the VAE.

    Returns:
        ``[3, H, W]`` float32, a cut or padded ``image``.
    """
    check_fit(fit)
    if fit == "stretch":
        return image
    h, w = image.shape[1:]
    choose = min if fit == "crop" else max
    wanted = choose(w, _side(h * width / height)), choose(h, _side(w * height / width))
    if wanted[0] * wanted[1] > MAX_PIXELS:  # a strip one pixel wide, padded to a square
        return fit_image(image, width, height, fit)
    return _centred(image, *wanted)


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """``[3, H, W]`` to ``[3, height, width]`` with the kernel of :func:`fit_image`; an equal size is left alone."""
    h, w = image.shape[1:]
    if (h, w) == (height, width):
        return image
    antialias = max(h / height, w / width) > ANTIALIAS_ABOVE
    return F.interpolate(image[None], size=(height, width), mode="bicubic", antialias=antialias)[0]


def _cover(image: Tensor, width: int, height: int) -> Tensor:
    scale = max(width / image.shape[2], height / image.shape[1])
    cover = max(width, _side(image.shape[2] * scale)), max(height, _side(image.shape[1] * scale))
    if cover[0] > MAX_GROWTH * width or cover[1] > MAX_GROWTH * height:
        # An 8000 x 1 strip would be resized to billions of pixels only to be thrown away.
        return resize(view(image, width, height, "crop"), width, height)
    return _centred(resize(image, *cover), width, height)


def _centred(image: Tensor, width: int, height: int) -> Tensor:
    """Cut what hangs over and fill what is missing with black, evenly on both sides. [3, H, W]"""
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    image = image[:, max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width]
    missing_h, missing_w = height - image.shape[1], width - image.shape[2]
    if not missing_h and not missing_w:
        return image.contiguous()
    before_h, before_w = missing_h // 2, missing_w // 2
    return F.pad(image, (before_w, missing_w - before_w, before_h, missing_h - before_h))


def _side(pixels: float) -> int:
    return max(1, round(pixels))


def _channels_first(image: Tensor, name: str) -> Tensor:
    """``[C, H, W]``; where both readings are possible, channels first."""
    shape = list(image.shape)
    if image.ndim == 4 and shape[0] == 1:
        image = image[0]
    if image.ndim == 3 and image.numel():
        if image.shape[0] in (1, 3, 4):
            return image
        if image.shape[2] in (1, 3, 4):
            return image.permute(2, 0, 1)
    raise InputError(f"{name} has shape {shape}; give one image as [3, H, W] or [H, W, 3]")


def _over(pixels: Tensor, background: tuple[float, float, float]) -> Tensor:
    """``[1, 3 or 4, H, W]`` without the batch to ``[3, H, W]``: grey repeated, alpha laid over ``background``."""
    if pixels.shape[0] == 1:
        return pixels.expand(3, -1, -1).contiguous()
    if pixels.shape[0] == 3:
        return pixels.contiguous()
    alpha = pixels[3:]
    return pixels[:3] * alpha + torch.tensor(background).view(3, 1, 1) * (1 - alpha)


def _check_pixels(path: object, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"{path} is {size[0]}x{size[1]}; at most {MAX_PIXELS:,} pixels are read, resize it first")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] if text and "cannot identify" not in text else "not a known image format"
