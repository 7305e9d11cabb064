"""What the person in front of the graph sees of a clip while it is sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.latent_formats
import latent_preview
import torch


def previewer(device: torch.device) -> Callable[[torch.Tensor], Any] | None:
    """From latents ``[B, 16, T, h, w]`` in model space to a preview of the latent frame halfway through.

    The host's own shows the start of the clip, which the user has; the middle is what is made. None where the user
    wants no previews.
    """
    found = latent_preview.get_previewer(device, comfy.latent_formats.Wan21())

    def preview(latents: torch.Tensor) -> Any:
        middle = latents.shape[2] // 2
        return found.decode_latent_to_preview_image("JPEG", latents[:1, :, middle : middle + 1])

    return None if found is None else preview
