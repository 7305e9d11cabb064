"""A folder as diffusers saves it: ``transformer/``, ``vae/``, ``text_encoder/``, ``image_encoder/``, or one of them."""

from __future__ import annotations

from pathlib import Path

from ..source import TensorSource
from .folder import read_json, read_shards

NAME = "diffusers folder"
CLASSES = {
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel",),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
}


def open_part(path: Path, part: str) -> TensorSource | None:
    """The named part of a pipeline folder, or the folder itself if it is one part."""
    folder = part_folder(path, part)
    if folder is None:
        return None
    config = read_json(folder / "config.json")
    return TensorSource(format=NAME, path=str(folder), entries=read_shards(folder), config=config)


def part_folder(path: Path, part: str) -> Path | None:
    """Where a part lies: told from the class that ``config.json`` names."""
    for folder in (path / part, path):
        if not (folder / "config.json").is_file():
            continue
        config = read_json(folder / "config.json")
        named = (config.get("_class_name"), *(config.get("architectures") or ()))
        if any(name in CLASSES[part] for name in named):
            return folder
    return None
