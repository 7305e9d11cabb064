"""LATENT: raw VAE latents ``[B, 16, T, h, w]``, as core's own nodes for Wan have them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...wan_local.config import TransformerConfig
from ...wan_local.errors import InputError
from ...wan_local.shapes import SPATIAL_STRIDE, Grid, video_frames

APPROXIMATED = "wan_flf2v_approximations"


def clip_of(latent: dict[str, Any], config: TransformerConfig) -> tuple[Grid, int]:
    """The clip a ``LATENT`` stands for, and how many of them.

    Raises:
        InputError: a latent that is no clip of this model, or a masked one.
    """
    samples: Tensor = latent["samples"]
    if samples.ndim != 5 or samples.shape[1] != config.out_dim:
        raise InputError(
            f"latent has shape {list(samples.shape)}; this model samples [batch, {config.out_dim}, frames, height, "
            "width]: take it from Wan FLF2V Conditioning or core's WanFirstLastFrameToVideo"
        )
    if latent.get("noise_mask") is not None:
        raise InputError(
            "latent has a noise mask, which this sampler can't do; connect it without Set Latent Noise Mask"
        )
    frames, height, width = samples.shape[2:]
    clip = Grid(frames=video_frames(frames), height=height * SPATIAL_STRIDE, width=width * SPATIAL_STRIDE)
    return clip, samples.shape[0]


def clips(latent: dict[str, Any]) -> Tensor:
    """What is to be decoded; :class:`InputError` for single images."""
    samples: Tensor = latent["samples"]
    if samples.ndim != 5:
        raise InputError(
            f"latent has shape {list(samples.shape)}; this node decodes a clip, [batch, 16, frames, height, "
            "width]: for single images use VAE Decode"
        )
    return samples


def sampled(samples: Tensor, approximated: str) -> dict[str, Any]:
    """A ``LATENT`` of ``[B, 16, T, h, w]`` that says what was not calculated in full; other nodes pass that on."""
    return {"samples": samples, APPROXIMATED: approximated}


def approximated(latent: dict[str, Any]) -> str:
    """What a ``LATENT`` says of that; nothing where nobody said anything."""
    return str(latent.get(APPROXIMATED, ""))
