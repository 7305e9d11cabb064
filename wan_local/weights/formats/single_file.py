"""One file with one model: safetensors as ComfyUI, Kijai and diffusers write them, GGUF, or a lone ``.pth``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...errors import UnreadableWeights
from ..source import TensorSource, reason
from . import gguf_file, pickled, safetensors_file

NAME = "single file"


def open_part(path: Path, part: str) -> TensorSource | None:
    """The file's tensors, whatever they are; ``part`` is checked by what reads them."""
    if not path.is_file():
        return None
    if pickled.looks_like(path):
        return TensorSource(format=NAME, path=str(path), entries=pickled.read_entries(path))
    metadata: Mapping[str, object]
    if gguf_file.looks_like(path):
        entries, metadata = gguf_file.read_header(path)
    else:
        entries, metadata = safetensors_file.read_header(path)
    return TensorSource(format=NAME, path=str(path), entries=entries, config=_config(path, metadata), metadata=metadata)


def _config(path: Path, metadata: Mapping[str, object]) -> dict[str, object]:
    """A model config that the file carries in its metadata, as JSON under ``config``."""
    try:
        config = json.loads(str(metadata.get("config") or "{}"))
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableWeights(
            f"{path} carries a config that is not JSON ({reason(error)}); download it again"
        ) from error
    return config if isinstance(config, dict) else {}
