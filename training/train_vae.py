"""Train the nano model's Wan-VAE: single frames first, then short clips, then whole ones.

Run by ``python -m training``.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wan_local.config import VAEConfig
from wan_local.vae import WanVAE

from .draw import draw_parts, random_clips
from .loop import Recipe, Stage, train

CONFIG = VAEConfig(dim=16)
SIZE = 64
KL_WEIGHT = 1e-5  # only keeps the latents from drifting apart; their scale is set afterwards
SHAPE_WEIGHT = 3.0
SEED = 1_000_000
WHOLE, AGAIN = 500_000, 700_000  # keep the clips of the last curves apart from those before


def train_vae(run: Path, steps: tuple[int, int, int, int, int]) -> WanVAE:
    """Train and return the VAE with averaged weights.

    Args:
        run: folder for checkpoints and logs.
        steps: for single frames, 5-frame and 13-frame clips under one learning-rate curve, then for 17-frame clips
            under a second and a third one.
    """
    torch.manual_seed(0)
    vae = WanVAE(CONFIG)
    for module in vae.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 1, 1):
            _start_as_identity(module)
    vae.encoder.compile(dynamic=False)  # halves the time of a step; costs two minutes a stage
    vae.decoder.compile(dynamic=False)
    stages = [
        Stage(name="frames", steps=steps[0], loss=lambda step: _loss(vae, step, count=24, frames=1)),
        Stage(name="short", steps=steps[1], loss=lambda step: _loss(vae, step, count=6, frames=5)),
        Stage(name="clips", steps=steps[2], loss=lambda step: _loss(vae, step, count=3, frames=13)),
    ]
    train(vae, stages, Recipe(learning_rate=2e-3), run / "first")
    train_on_whole_clips(vae, run / "whole", steps[3], WHOLE)
    train_on_whole_clips(vae, run / "again", steps[4], AGAIN)
    return vae


def train_on_whole_clips(vae: WanVAE, run: Path, steps: int, first_clip: int) -> None:
    """One learning-rate curve on 17-frame clips and single frames; ``first_clip`` keeps curves from sharing clips."""
    stage = Stage(name=run.name, steps=steps, loss=lambda step: _mixed_loss(vae, first_clip + step))
    train(vae, [stage], Recipe(learning_rate=1.5e-3, warmup=50, average=0.995), run)


def _loss(vae: WanVAE, step: int, *, count: int, frames: int) -> tuple[Tensor, dict[str, float]]:
    video, background = draw_parts(random_clips(SEED + step, count), frames, SIZE)
    weight = shape_weight(video, background)
    if frames > 1 and step % 8 == 0:
        video[:, :, 1:-1] = 0  # what the sampler is conditioned on: two frames, grey between
    mean, log_variance = vae.encode_moments(video)
    mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
    latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    out = vae.decode_whole(latents).float()
    error = out - video
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    mse = error.square().mean()
    return picture_loss(error, weight) + KL_WEIGHT * kl, {"psnr": 10 * math.log10(4 / mse.item()), "kl": kl.item()}


def _mixed_loss(vae: WanVAE, step: int) -> tuple[Tensor, dict[str, float]]:
    """Every third batch are single frames: they sharpen what clips then have to move."""
    return _loss(vae, step, count=24, frames=1) if step % 3 == 0 else _loss(vae, step, count=2, frames=17)


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
