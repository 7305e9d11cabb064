"""Give a trained VAE the latent statistics of the released model, exactly.

The released Wan-VAE comes with a mean and a standard deviation for each latent channel, and every program that knows
Wan2.1 has these 32 numbers built in. The first layer behind the encoder and the first in front of the decoder are
1x1x1 convolutions, so any change of scale and offset of the latents can be put into them: afterwards the nano VAE's
latents have the official statistics, its frames are unchanged, and nothing anywhere needs to know which VAE it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wan_local.vae import WanVAE

from .draw import draw, random_clips

SEED = 4_000_000
BATCHES = 16


@torch.inference_mode()
def measure(vae: WanVAE, frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[z_dim]`` of the latents of drawn clips."""
    means, device = [], next(vae.parameters()).device
    for batch in range(BATCHES):
        mean, _ = vae.encode_moments(draw(random_clips(SEED + batch, 4), frames, size, device))
        means.append(mean.transpose(0, 1).flatten(1))
    latents = torch.cat(means, dim=1).double().cpu()  # [z_dim, values]
    return latents.mean(1), latents.std(1)


@torch.no_grad()
def set_statistics(vae: WanVAE, mean: Tensor, std: Tensor) -> None:
    """Fold the affine map that takes ``(mean, std)`` to the config's values into ``conv1`` and ``conv2``, in place."""
    z_dim = vae.config.z_dim
    target_mean = torch.tensor(vae.config.latents_mean, dtype=torch.float64)
    gain = torch.tensor(vae.config.latents_std, dtype=torch.float64) / std  # new = (old - mean) * gain + target_mean

    weight, bias = vae.conv1.weight.double(), vae.conv1.bias.double()
    column = gain.view(-1, 1, 1, 1, 1)
    vae.conv1.weight[:z_dim] = (weight[:z_dim] * column).to(vae.conv1.weight)
    vae.conv1.bias[:z_dim] = ((bias[:z_dim] - mean) * gain + target_mean).to(vae.conv1.bias)
    vae.conv1.bias[z_dim:] = (bias[z_dim:] + 2 * gain.log()).to(vae.conv1.bias)  # the log variance scales along

    weight, bias = vae.conv2.weight.double(), vae.conv2.bias.double()
    offset = mean - target_mean / gain  # old = new / gain + offset
    vae.conv2.bias.copy_(bias + weight.flatten(1) @ offset)
    vae.conv2.weight.copy_(weight / gain.view(1, -1, 1, 1, 1))
