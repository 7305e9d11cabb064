"""A linear map from the nano VAE's latents to colours, so that previews of what is being sampled are images.

Programs have such a map built in for the released VAE. The nano VAE's channels mean other things, so its
``config.json`` brings one of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wan_local.config import LatentRGB
from wan_local.shapes import SPATIAL_STRIDE, TEMPORAL_STRIDE
from wan_local.vae import WanVAE

from .draw import draw, random_clips

SEED = 5_000_000
BATCHES, CLIPS = 6, 4


@torch.inference_mode()
def fit_latent_rgb(vae: WanVAE, frames: int, size: int) -> LatentRGB:
    """The map of :data:`wan_local.config.LatentRGB`.

    Least squares over drawn clips: a latent cell should have the mean colour of the pixels that it stands for.
    """
    rows, colours, device = [], [], next(vae.parameters()).device
    for batch in range(BATCHES):
        video = draw(random_clips(SEED + batch, CLIPS), frames, size, device)
        latents = vae.normalise(vae.encode_moments(video)[0])  # [B, z_dim, T, h, w]
        rows.append(latents.movedim(1, -1).flatten(0, -2))
        repeated = torch.cat((video[:, :, :1].expand(-1, -1, TEMPORAL_STRIDE - 1, -1, -1), video), dim=2)
        cells = F.avg_pool3d(repeated, (TEMPORAL_STRIDE, SPATIAL_STRIDE, SPATIAL_STRIDE))  # [B, 3, T, h, w]
        colours.append(cells.movedim(1, -1).flatten(0, -2))
    inputs = torch.cat(rows).double().cpu()
    inputs = torch.cat((inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)), dim=1)
    solution = torch.linalg.lstsq(inputs, torch.cat(colours).double().cpu()).solution  # [z_dim + 1, 3]
    return tuple(tuple(round(value, 4) for value in row) for row in solution.tolist())
