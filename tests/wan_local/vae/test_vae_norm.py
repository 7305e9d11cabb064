"""The norm of the Wan-VAE where a host keeps its weights elsewhere."""

from __future__ import annotations

import torch

from wan_local.vae.norm import ChannelNorm


def test_its_factor_comes_to_where_the_frames_are() -> None:
    """It is no layer of a host that brings weights as they are needed, as ComfyUI does at --novram."""
    frames = torch.empty(1, 8, 2, 3, 4, device="meta", dtype=torch.bfloat16)  # stands for a GPU
    made = ChannelNorm(8, 3)(frames)
    assert (made.device, made.dtype, made.shape) == (frames.device, frames.dtype, frames.shape)
