"""The parts of a pipeline: where they lie, where they work, and what in. ``generate.py`` puts them together."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .encoders.cache import FOLDER, CachedTextEncoder, TextCache, identity
from .encoders.text import TextEncoder
from .errors import InputError
from .memory import Memory
from .notices import tell
from .weights import load_text_encoder
from .weights.load import open_source, vae_source
from .weights.load_encoders import check_text_encoder, image_parts, tokenizer_folder


class EncodesText(Protocol):
    """What a pipeline asks of a text encoder."""

    def encode(self, prompts: list[str], /) -> Tensor:
        """Prompt embeddings ``[B, S, text_dim]``."""
        ...


class EncodesImages(Protocol):
    """What a pipeline asks of an image encoder."""

    def encode(self, images: list[Tensor], /) -> Tensor:
        """Images ``[3, H, W]`` in -1..1 to embeddings ``[N, rows, image_dim]``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Files or folders of parts that lie elsewhere than the transformer; None for those that lie with it."""

    vae: str | PathLike[str] | None = None
    text_encoder: str | PathLike[str] | None = None
    image_encoder: str | PathLike[str] | None = None
    tokenizer: str | PathLike[str] | None = None


def check_parts(folder: Path, parts: Parts, *, has_images: bool) -> None:
    """Open what a pipeline takes beside its transformer, by far the largest: what is wrong is told before that is read.

    Args:
        folder: model folder, or the transformer's file.
        parts: those that lie elsewhere.
        has_images: whether there is an image encoder among them.

    Raises:
        WeightsError: one is missing, or it is broken or another model as far as headers tell.
    """
    vae_source(parts.vae or folder)
    check_text_encoder(parts.text_encoder or folder, parts.tokenizer, tokenizer_of=folder)
    if has_images:
        image_parts(open_source(parts.image_encoder or folder, "image_encoder"))


def text_encoder(
    folder: str | os.PathLike[str],
    dtype: torch.dtype,
    memory: Memory,
    cache: str | os.PathLike[str] | None,
    tokenizer: str | os.PathLike[str] | None = None,
    tokenizer_of: str | os.PathLike[str] | None = None,
) -> EncodesText:
    """The text encoder of a model folder, loaded at the first prompt that is not in the cache; now if there is none.

    Args:
        folder: model folder, any layout, or a file of the encoder.
        dtype: of its weights.
        memory: where it is loaded to, and how it comes to the device.
        cache: folder in which :data:`FOLDER` is the cache, or None.
        tokenizer: its folder, or None for the one with the encoder.
        tokenizer_of: a model folder whose tokenizer will do where there is none with the encoder.

    Raises:
        WeightsError: there is none, or it is broken as far as headers tell; the rest when it is loaded.
    """

    def load() -> TextEncoder:
        return load_text_encoder(
            folder, dtype=dtype, device=memory.home, tokenizer=tokenizer, tokenizer_of=tokenizer_of
        )

    if cache is None:
        return load()
    source = open_source(folder, "text_encoder")
    words = tokenizer_folder(source, tokenizer, tokenizer_of)
    files = [Path(source.path), *([] if words is None else [words])]
    try:
        name = identity(files, dtype, *_where(memory.device))
    except OSError:  # the loader has words for it
        return load()
    return CachedTextEncoder(load, TextCache(Path(cache) / FOLDER), name, using=memory.on_device)


def _where(device: torch.device) -> tuple[str, ...]:
    """What else decides the last bits of a result."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return device.type, kind, torch.__version__, version("transformers")


def default_dtype(device: torch.device) -> torch.dtype:
    """What networks calculate in on a device where nobody says: float32 on a CPU, which is slow at half precision, and
    bfloat16 on a GPU; on NVIDIA's before compute capability 8.0 float16, with a notice: no fused attention takes
    bfloat16 there, and without one a clip's scores are hundreds of gigabytes."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        tell(f"{name} has no fused attention for bfloat16, so the networks calculate in float16")
        return torch.float16
    return torch.bfloat16


def choose_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the GPU if there is one; :class:`InputError` for one that isn't there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device={str(device)!r} can't be used here; use {', '.join(here)}") from error
    return chosen
