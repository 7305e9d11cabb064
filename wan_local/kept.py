"""Latents that a failed run leaves behind, as a file that `python -m wan_local decode` reads."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from .errors import InputError
from .output import replacing
from .weights.formats import safetensors_file

SUFFIX = ".latents.safetensors"
NAME = "latents"


def write(path: Path, latents: Tensor, about: dict[str, str] | None = None) -> None:
    """Keep latents ``[B, 16, T, h, w]`` in model space.

    Args:
        path: of the file; it is there whole or not at all.
        latents: on any device.
        about: what else to remember, such as the seed.

    Raises:
        OutputError: it could not be written.
    """
    with replacing(path) as temporary:
        # save_file would make it readable by its owner alone
        temporary.write_bytes(save({NAME: latents.detach().float().cpu().contiguous()}, about))


def read(path: Path) -> Tensor:
    """``[B, z, T, h, w]`` float32 of a kept file.

    Raises:
        InputError: it holds none.
        WeightsError: it can't be read.
    """
    entries, _ = safetensors_file.read_header(path)
    entry = entries.get(NAME)
    if entry is None or len(entry.shape) != 5:
        raise InputError(f"{path} holds no latents; give a {SUFFIX} file that a failed run kept")
    return entry.read().float()


def about(path: Path) -> dict[str, str]:
    """What else was remembered; errors as :func:`read`."""
    return dict(safetensors_file.read_header(path)[1])
