"""The two images as a cloud takes them: fitted to the clip, without transparency, within a budget of bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from PIL import Image, ImageOps

from .errors import InvalidRequest

LADDER = (("PNG", None), ("JPEG", 95), ("JPEG", 90))
"""Tried in turn until the image fits the budget."""
THUMBNAIL_SIDE = 160  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One encoded image, or one that the cloud fetches itself.

    Attributes:
        data: the file; empty for one that lies elsewhere.
        kind: "png" or "jpeg"; empty likewise.
        sha256: of the file, or of its address.
        address: where it lies; empty for a file. It may be signed.
    """

    data: bytes = field(repr=False)
    kind: str
    sha256: str
    address: str = field(default="", repr=False)

    @property
    def mime(self) -> str:
        return f"image/{self.kind}"


def fitted(pixels: np.ndarray, width: int, height: int, fit: str) -> np.ndarray:
    """``[H, W, 3 or 4]`` uint8 to ``[height, width, 3]``; transparency is laid over black, as the local nodes do."""
    if pixels.shape == (height, width, 3):
        return pixels.copy()  # what is sent is what is hashed, whatever the caller does to it meanwhile
    image = Image.fromarray(pixels)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    if image.size == (width, height):
        return np.asarray(image)
    size, kernel = (width, height), Image.Resampling.LANCZOS
    if fit == "crop":
        image = ImageOps.fit(image, size, kernel)
    elif fit == "pad":
        image = ImageOps.pad(image, size, kernel, color=(0, 0, 0))
    else:
        image = image.resize(size, kernel)
    return np.asarray(image)


def fingerprint(pixels: np.ndarray) -> str:
    """Tells images apart by their pixels, however they are encoded."""
    found = sha256(f"{pixels.shape}".encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def elsewhere(address: str) -> Frame:
    """An image that the cloud fetches itself. The same address is taken for the same image."""
    return Frame(data=b"", kind="", sha256=sha256(f"address {address}".encode()).hexdigest(), address=address)


def thumbnail(pixels: np.ndarray) -> bytes:
    """``[H, W, 3]`` uint8 as a small JPEG file."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def encode(pixels: np.ndarray, budget: int, name: str) -> Frame:
    """``[H, W, 3]`` uint8 to a file of at most ``budget`` bytes.

    Raises:
        InvalidRequest: it fits in no form.
    """
    image, size = Image.fromarray(pixels), 0
    for kind, quality in LADDER:
        out = io.BytesIO()
        options = {} if quality is None else {"quality": quality, "subsampling": 0}
        image.save(out, kind, **options)
        size = out.tell()
        if size <= budget:
            data = out.getvalue()
            return Frame(data=data, kind=kind.lower(), sha256=sha256(data).hexdigest())
    raise InvalidRequest(
        f"{name} takes {size:,} bytes and the cloud takes {budget:,} an image; use an image with less noise in it"
    )
