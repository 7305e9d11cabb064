"""Weight files as the loaders list them: what ComfyUI has in a model folder, then what is bundled."""

from __future__ import annotations

from pathlib import Path

from ..wan_local.errors import InputError, WrongModel
from ..wan_local.weights import detect
from . import host

TAKEN_BY = {
    **dict.fromkeys(detect.LOADABLE, "Load Wan FLF2V Model"),
    detect.VAE: "Load Wan FLF2V VAE",
    detect.LORA: "Wan FLF2V LoRA",
    detect.TEXT_TRANSFORMER: "core's Load Diffusion Model",
    detect.OTHER_TRANSFORMER: "core's Load Diffusion Model",
    **dict.fromkeys(
        (*detect.VARIANTS.values(), detect.CONTROL_TRANSFORMER, detect.LARGE_TRANSFORMER), "core's Load Diffusion Model"
    ),
    detect.LARGE_VAE: "core's Load VAE",
    "a T5 text encoder in transformers' layout": "core's Load CLIP, type wan,",
    "a T5 text encoder in llama.cpp's layout": "Load Wan FLF2V Pipeline, as its text_encoder,",
    "the umT5 text encoder of the official release": "Load Wan FLF2V Pipeline, with the whole folder,",
    "the image encoder of the official release": "core's Load CLIP Vision",
    "a CLIP image encoder in transformers' layout": "core's Load CLIP Vision",
    "a Stable Diffusion checkpoint": "core's Load Checkpoint",
}
"""What a file may turn out to be, to the node that takes it."""


def names(kind: str) -> list[str]:
    """What a loader of ``kind`` (a folder below ``models``) offers."""
    return [*host.model_files(kind), *host.bundled(kind)]


def path(kind: str, field: str, name: str) -> Path:
    """Where ``name`` is.

    Raises:
        InputError: not one of :func:`names`.
    """
    found = host.bundled(kind).get(name) or host.model_path(kind, name)
    if found is None:
        raise InputError(f"{field}={name!r} is not in models/{kind}; put it there, or pick one that is")
    return found


def stamp(kind: str, name: str) -> tuple[str, int] | None:
    """What changes when the file is replaced by another of the same name."""
    found = None if name in host.bundled(kind) else host.model_path(kind, name)
    return None if found is None else (str(found), found.stat().st_mtime_ns)


def with_node(error: WrongModel) -> WrongModel:
    """The same error, with the node that takes such a file if there is one."""
    node = TAKEN_BY.get(error.found)
    return WrongModel(f"{error}. {node} takes this file", error.found) if node else error
