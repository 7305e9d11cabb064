"""What kind of image a file is, told from its first bytes, and which kinds are read here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from PIL import Image

from .errors import InputError

# Only formats that Pillow decodes by itself: EPS, for one, would start another program. What people call them.
FORMATS = {
    "PNG": "PNG", "JPEG": "JPEG", "MPO": "MPO", "WEBP": "WebP", "TIFF": "TIFF", "BMP": "BMP", "GIF": "GIF",
    "AVIF": "AVIF", "JPEG2000": "JPEG 2000", "PPM": "PPM", "TGA": "TGA",
}  # fmt: skip
HEIF = "pillow_heif"  # an extra: its library of codecs is larger than all of Pillow
BRANDS = {  # of ISO base media files; AVIF may have HEIC's general ones besides
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"},
}
SIGNATURES = {
    b"8BPS": "PSD", b"v/1\x01": "EXR", b"#?RADIANCE": "HDR", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\1\0": "ICO", b"DDS ": "DDS", b"%PDF": "PDF", b"%!PS": "EPS", b"<svg": "SVG", b"<?xml": "SVG or XML",
    b"<!doctype html": "a web page", b"<html": "a web page", b"version https://git-lfs": "a git-lfs pointer",
}  # fmt: skip
INSTEAD = {
    "HEIC": "pip install pillow-heif, or save it as PNG or JPEG",
    "AVIF": "Pillow reads it from 11.3 on; update it, or save it as PNG or JPEG",
    "a web page": "download the image itself",
    "a git-lfs pointer": "fetch the image with git lfs pull",
}


def pillow_formats() -> list[str]:
    """Those of :data:`FORMATS` that the installed Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def readable() -> str:
    """The kinds that are read here, as a list for people."""
    return ", ".join([*(FORMATS[name] for name in pillow_formats()), *(["HEIC"] if reads_heif() else [])])


@contextmanager
def open_image(path: str | PathLike[str], check: Callable[[tuple[int, int]], None]) -> Iterator[Image.Image]:
    """An image; ``check`` is called with its (width, height) before anything is decoded, and may raise.

    Raises:
        InputError: a kind that is known and not read.
        Exception: of Pillow, for what it can't open.
    """
    kind = kind_of(path)
    if kind == "HEIC" and reads_heif():
        file: Any = importlib.import_module(HEIF).open_heif(path, convert_hdr_to_8bit=True)
        check(file.size)
        with file.to_pillow() as image:  # upright
            yield image
        return
    if kind is not None and kind not in [FORMATS[name] for name in pillow_formats()]:
        how = INSTEAD.get(kind, "save it as PNG or JPEG")
        raise InputError(f"{path} is {kind}, which can't be read here: {how}. Read are {readable()}")
    # Of what is named Pillow maps a plain TIFF into memory, at the size that it has once turned upright: scrambled.
    with open(path, "rb") as opened, Image.open(opened, formats=pillow_formats()) as image:
        check(image.size)
        yield image


def kind_of(path: str | PathLike[str]) -> str | None:
    """What its first bytes say; None for what Pillow knows better, and for nothing known."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        brands = [head[start : start + 4] for start in range(8, len(head), 4)]
        found = (kind for kind, own in BRANDS.items() if not own.isdisjoint(brands))
        return next(found, None)
    small = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for mark, kind in SIGNATURES.items() if head.startswith(mark) or small.startswith(mark)), None)


def reads_heif() -> bool:
    return importlib.util.find_spec(HEIF) is not None
