"""Small files for the editor alone, in the folder that the host empties at each start."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from PIL import Image

FOLDER = "wan_flf2v"
SIDE = 1024  # pixels; no node is wider


def temporary_file(ending: str) -> tuple[Path, dict[str, Any]]:
    """A path that nobody has, and what the editor asks ``/view`` for to get what is there."""
    folder = Path(folder_paths.get_temp_directory()) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{uuid.uuid4().hex}{ending}"
    return folder / name, {"filename": name, "subfolder": FOLDER, "type": "temp"}


def temporary_image(image: torch.Tensor) -> dict[str, Any]:
    """Write ``[H, W, 3]`` 0..1, a large one smaller; what the editor asks ``/view`` for."""
    pixels = (image.detach().float().clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()
    small = Image.fromarray(np.ascontiguousarray(pixels))
    small.thumbnail((SIDE, SIDE))
    path, place = temporary_file(".png")
    small.save(path, compress_level=1)
    return place
