"""One file with one model: ComfyUI's repackaged safetensors, a lone ``.pth``, or one shard-less diffusers file."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import UnreadableWeights
from ..source import TensorSource, reason
from . import pickled, safetensors_file

NAME = "single file"


def open_part(path: Path, part: str) -> TensorSource | None:
    """The file's tensors, whatever they are; ``part`` is checked by what reads them."""
    if not path.is_file():
        return None
    if pickled.looks_like(path):
        return TensorSource(format=NAME, path=str(path), entries=pickled.read_entries(path))
    entries, metadata = safetensors_file.read_header(path)
    return TensorSource(format=NAME, path=str(path), entries=entries, config=_config(path, metadata))


def _config(path: Path, metadata: dict[str, str]) -> dict[str, object]:
    """A model config that the file carries in its metadata, as JSON under ``config``."""
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError) as error:
        raise UnreadableWeights(
            f"{path} carries a config that is not JSON ({reason(error)}); download it again"
        ) from error
    return config if isinstance(config, dict) else {}
