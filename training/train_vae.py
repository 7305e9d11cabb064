"""Train the nano model's Wan-VAE on whole small clips and on crops of larger ones: it is convolutional."""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_local.config import VAEConfig
from wan_local.vae import WanVAE

from .draw import draw_parts, random_clips
from .known import random_known
from .loop import Curve, Recipe, train

CONFIG = VAEConfig(dim=16)
CROP = 64
SIZES = (64, 128)  # of the clips that crops come from
LENGTHS = {1: 12, 9: 2, 17: 1}  # frames of a clip to how many of them weigh as much as one of the longest
KL_WEIGHT = 1e-5  # only keeps the latents from drifting apart; their scale is set afterwards
SHAPE_WEIGHT = 3.0
KNOWN_ONLY = 0.125  # share of clips that are grey but for some frames, as the sampler's condition is
NOISE = 0.06  # on the latents, over their deviation: the decoder forgives what the transformer gets slightly wrong
SEED = 1_000_000
RECIPES = {
    "new": Recipe(learning_rate=2e-3, warmup=200),
    "warm": Recipe(learning_rate=8e-4, warmup=50, average=0.998),
}


def new_vae() -> WanVAE:
    """One that has learnt nothing."""
    torch.manual_seed(0)
    vae = WanVAE(CONFIG)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 1, 1):
            _start_as_identity(module)
    return vae


def train_vae(run: Path, vae: WanVAE, batch: int, curve: Curve, device: torch.device, *, recipe: str) -> None:
    """Train ``vae`` in place.

    Args:
        run: folder for checkpoints and logs.
        vae: on ``device``.
        batch: clips of 17 frames a step; of shorter ones there are more.
        curve: how long.
        device: of all of it.
        recipe: a name of :data:`RECIPES`.
    """
    train(vae, lambda step: _loss(vae, step, batch, device), RECIPES[recipe], run, curve, device)


def _loss(vae: WanVAE, step: int, batch: int, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    rng = random.Random(step)
    frames, size = rng.choice(list(LENGTHS)), rng.choice(SIZES)
    clips = random_clips(SEED + step, batch * LENGTHS[frames])
    x, y = (rng.randint(0, size - CROP) for _ in range(2))
    crop = (..., slice(y, y + CROP), slice(x, x + CROP))
    video, background = (part[crop] for part in draw_parts(clips, frames, size, device))
    weight = shape_weight(video, background)
    if frames > 1:
        for clip in video:
            if rng.random() < KNOWN_ONLY:
                known = random_known(rng, frames)
                clip[:, [frame for frame in range(frames) if frame not in known]] = 0
    mean, log_variance = vae.encode_moments(video)
    mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
    latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    spread = mean.detach().std((0, 2, 3, 4), keepdim=True)
    latents = latents + NOISE * torch.rand(len(mean), 1, 1, 1, 1, device=device) * spread * torch.randn_like(mean)
    error = vae.decode_whole(latents).float() - video
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    mse = error.square().mean()
    return picture_loss(error, weight) + KL_WEIGHT * kl, {"psnr": 10 * math.log10(4 / mse.item()), "kl": kl.item()}


def shape_weight(video: Tensor, background: Tensor) -> Tensor:
    """How much a pixel counts, ``[B, 1, F, H, W]``: more near the shape, which is small and all that matters."""
    shape = ((video - background).abs().amax(1, keepdim=True) > 0.05).float()
    near = F.max_pool3d(shape, (1, 5, 5), stride=1, padding=(0, 2, 2))
    return 1 + SHAPE_WEIGHT * near


def picture_loss(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute and squared error, and the error of edges; ``[B, 3, F, H, W]`` to a scalar."""
    error = error * weight  # squared below: the weight counts twice there, on purpose
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + error.square().mean() + 0.5 * (across + down)


def _start_as_identity(conv: nn.Conv3d) -> None:
    """Temporal convolutions start by repeating the newest frame, as the official initialisation does."""
    out_dim, in_dim = conv.weight.shape[:2]
    with torch.no_grad():
        conv.weight.mul_(0.1)
        for half in range(out_dim // in_dim):
            conv.weight[half * in_dim : (half + 1) * in_dim, :, -1, 0, 0] += torch.eye(in_dim)
        if conv.bias is not None:
            conv.bias.zero_()
