"""A folder as diffusers saves it: ``transformer/``, ``vae/``, ``text_encoder/``, ``image_encoder/``, or one of them."""

from __future__ import annotations

from pathlib import Path

from ...errors import UnreadableWeights, WrongModel
from ..source import TensorSource, shown
from .folder import files, read_json, read_shards

NAME = "diffusers folder"
CLASSES = {
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel", "UMT5Model", "UMT5ForConditionalGeneration"),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"),
}


def open_part(path: Path, part: str) -> TensorSource | None:
    """The named part of a pipeline folder, or the folder itself if it is one part.

    Raises:
        UnreadableWeights: the part is meant to be there, but its config or its weights are not.
        WrongModel: the part's config names another class.
    """
    if not path.is_dir():
        return None
    folder = part_folder(path, part)
    if folder is None:
        return None
    config = read_json(folder / "config.json")
    entries = read_shards(folder)
    if not entries:
        raise UnreadableWeights(f"{folder} has a config.json but no .safetensors file; download its weights too")
    return TensorSource(format=NAME, path=str(folder), entries=entries, config=config)


def part_folder(path: Path, part: str) -> Path | None:
    """Where a part lies, told from the class that ``config.json`` names; raises as :func:`open_part`."""
    folder = path / part
    if (folder / "config.json").is_file():
        named = _named(read_json(folder / "config.json"))
        if not _is_part(named, part):
            told = f"is a {shown(named[0])!r} by its config.json" if named else "has a config.json that names no class"
            raise WrongModel(f"{folder} {told}; give a folder with {CLASSES[part][0]} there")
        return folder
    if files(folder, "*.safetensors"):
        raise UnreadableWeights(f"{folder} has weights but no config.json; download {folder / 'config.json'} too")
    indexed = read_json(path / "model_index.json").get(part)
    if isinstance(indexed, list) and any(indexed):  # [null, null] where the pipeline has none
        article = "an" if part == "image_encoder" else "a"
        raise UnreadableWeights(
            f"{path / 'model_index.json'} names {article} {part.replace('_', ' ')} and {folder} is not there; download "
            "it too"
        )
    return path if _is_part(_named(read_json(path / "config.json")), part) else None


def _is_part(named: list[str], part: str) -> bool:
    return any(name in CLASSES[part] for name in named)


def _named(config: dict[str, object]) -> list[str]:
    """Classes that a config names, diffusers' way and transformers'."""
    architectures = config.get("architectures")
    named = [config.get("_class_name"), *(architectures if isinstance(architectures, list) else ())]
    return [name for name in named if isinstance(name, str)]
