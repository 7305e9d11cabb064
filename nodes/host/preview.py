"""What the person in front of the graph sees of a clip while it is sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.latent_formats
import latent_preview
import torch

from ...wan_local.config import LatentRGB


def previewer(device: torch.device, latent_rgb: LatentRGB = ()) -> Callable[[torch.Tensor], Any] | None:
    """From latents ``[B, 16, T, h, w]`` in model space to a preview of the latent frame halfway through.

    The host's own shows the start of the clip, which the user has; the middle is what is made. None where the user
    wants no previews.

    Args:
        device: where previews are computed.
        latent_rgb: of the VAE that the latents are of, see :data:`wan_local.config.LatentRGB`; empty is the released
            one, for which the host has a map and small decoders.
    """
    latents_of = comfy.latent_formats.Wan21()
    if latent_rgb:
        latents_of.latent_rgb_factors, latents_of.latent_rgb_factors_bias = latent_rgb[:-1], latent_rgb[-1]
        latents_of.taesd_decoder_name = None
    found = latent_preview.get_previewer(device, latents_of)

    def preview(latents: torch.Tensor) -> Any:
        middle = latents.shape[2] // 2
        return found.decode_latent_to_preview_image("JPEG", latents[:1, :, middle : middle + 1])

    return None if found is None else preview
