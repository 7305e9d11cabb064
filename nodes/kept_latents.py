"""Latents that could not be decoded are kept: sampling them may have taken hours.

Twice, each as its reader wants it: in the output folder for the command line, in the input folder for core's Load
Latent.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ..wan_local import kept
from ..wan_local.command import program
from ..wan_local.errors import DecodeError, InputError, OutputError
from ..wan_local.free_memory import is_out_of_memory
from ..wan_local.output import replacing
from . import host

CORE_NAME, CORE_VERSION = "latent_tensor", "latent_format_version_0"  # of core's SaveLatent and LoadLatent


@contextlib.contextmanager
def on_failure(
    normalise: Callable[[Tensor], Tensor], latents: Tensor, *, fps: float | None = None, stopped: bool = False
) -> Iterator[None]:
    """Keep latents if what is done within fails.

    Args:
        normalise: raw latents to model space.
        latents: raw, ``[B, 16, T, h, w]``.
        fps: frames a second of the video that they were to become, if any.
        stopped: also if the user stops it; for a node whose input, sampled again, is lost then.

    Raises:
        DecodeError: in the place of what went wrong, with its reason, and how to go on.
        InputError: as it came: there is nothing worth keeping.
    """
    try:
        yield
    except InputError:  # no latents of this VAE
        raise
    except BaseException as error:
        if not host.is_failure(error):
            if stopped:
                host.log.warning("Stopped before the frames were done. %s", _kept(normalise, latents, fps))
            raise
        if is_out_of_memory(error):
            host.free_everything()
        raise DecodeError(f"{_reason(error)}. {_kept(normalise, latents, fps)}") from error


def _reason(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first.rstrip(".")


def _kept(normalise: Callable[[Tensor], Tensor], latents: Tensor, fps: float | None) -> str:
    """Keep them; what to say about it."""
    raw = latents.detach().float().cpu()
    path, copy = _places()
    try:
        kept.write(path, normalise(raw))
    except OutputError as error:
        return f"The latents could not be kept: {error}"
    rate = "" if fps is None else f" --fps {fps:g}"
    command = f'{program()} decode "{path}" --model VAE --output clip.mp4{rate}'
    try:
        with replacing(copy) as temporary:
            save_file({CORE_NAME: raw.contiguous(), CORE_VERSION: raw.new_empty(0)}, temporary)
    except OutputError:
        return f"The latents are kept. To go on: {command}"
    return (
        f"The latents are kept. To go on: press R, and connect Load Latent with {copy.name} to Wan FLF2V Decode; "
        f"or run {command}"
    )


def _places() -> tuple[Path, Path]:
    """Two files that are not there yet: in the results' folder and in the input folder."""
    for number in itertools.count(1):
        name = f"latents_{number:05}"
        paths = host.results_folder() / f"{name}{kept.SUFFIX}", host.input_folder() / f"{host.RESULTS}_{name}.latent"
        if not any(path.exists() for path in paths):
            break
    return paths
