"""What travels on the host's wires: latents, conditioning, videos, image encoder output."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.latent_formats
import comfy.sd
import folder_paths
import node_helpers
import torch
from comfy_api.v0_0_2 import InputImpl, Types, io, ui

CLIP = comfy.sd.CLIP
ClipVisionOutput = comfy.clip_vision.Output
VideoFromComponents = InputImpl.VideoFromComponents


def normalise_latents(latents: torch.Tensor) -> torch.Tensor:
    """Raw latents of core's own Wan-VAE to model space."""
    return comfy.latent_formats.Wan21().process_in(latents)


def denormalise_latents(latents: torch.Tensor) -> torch.Tensor:
    """Model space to raw latents of core's own Wan-VAE."""
    return comfy.latent_formats.Wan21().process_out(latents)


def with_values(conditioning: Any, values: dict[str, Any]) -> Any:
    """A copy of ``CONDITIONING`` with ``values`` set on every entry."""
    return node_helpers.conditioning_set_values(conditioning, values)


def video_file(path: Path) -> Any:
    """``VIDEO`` that is a file: saved again, it is copied and not encoded again."""
    return InputImpl.VideoFromFile(str(path))


def video_preview(paths: Iterable[Path]) -> dict[str, Any]:
    """What shows files of the output folder on their node, for its ``ui``."""
    places = [path.relative_to(folder_paths.get_output_directory()) for path in paths]
    shown: dict[str, Any] = ui.PreviewVideo(
        [ui.SavedResult(place.name, place.parent.as_posix(), io.FolderType.output) for place in places]
    ).as_dict()
    return shown


def video_components(images: torch.Tensor, fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1000)
    return Types.VideoComponents(images=images, frame_rate=rate, audio=None)


def is_plain_mp4(path: Any, format: Any, codec: Any) -> bool:
    """Whether the host asks for H.264 in an mp4 file of that path, the only thing 0.8.0 writes."""
    return (
        isinstance(path, str | Path)
        and str(path).lower().endswith(".mp4")
        and str(getattr(format, "value", format)) in ("auto", "mp4")
        and str(getattr(codec, "value", codec)) in ("auto", "h264")
    )


def clip_vision_output(**fields: Any) -> Any:
    """``CLIP_VISION_OUTPUT`` with the given fields; the others that core reads are None."""
    output = ClipVisionOutput()
    names: Iterable[str] = ("last_hidden_state", "image_embeds", "penultimate_hidden_states", "mm_projected")
    for name in names:
        output[name] = fields.pop(name, None)
    for name, value in fields.items():
        output[name] = value
    return output
