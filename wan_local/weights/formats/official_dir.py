"""The official release's folder: transformer shards beside ``.pth`` files of the VAE and both encoders.

Which file is which is told from the tensor names inside, so renamed files are found too.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import UnreadableWeights
from ..source import Entry, TensorSource
from . import pickled
from .folder import files, read_json, read_shards

NAME = "official folder"
SIGNS = {  # a name that only this part has
    "transformer": "patch_embedding.weight",
    "vae": "decoder.head.0.gamma",
    "text_encoder": "token_embedding.weight",
    "image_encoder": "visual.patch_embedding.weight",
}


def open_part(path: Path, part: str) -> TensorSource | None:
    """The named part of the folder, or None if nothing in it is that part.

    Raises:
        UnreadableWeights: broken, or another file is, which may be the part.
    """
    if not path.is_dir():
        return None
    if part == "transformer":
        config = read_json(path / "config.json")
        if config.get("_class_name") not in (None, "WanModel"):
            return None
        return _source(path, part, read_shards(path), config)
    broken: UnreadableWeights | None = None
    for file in files(path, "*.pth"):
        try:
            if file.is_file() and (source := _source(file, part, pickled.read_entries(file), {})):
                return source
        except UnreadableWeights as error:  # the next one may still be it
            broken = broken or error
    if broken is not None:
        raise broken
    return None


def _source(path: Path, part: str, entries: dict[str, Entry], config: dict[str, object]) -> TensorSource | None:
    if SIGNS[part] not in entries:
        return None
    return TensorSource(format=NAME, path=str(path), entries=entries, config=config)
