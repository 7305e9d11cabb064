"""Go on training the nano VAE's decoder alone, on the latents that the transformer learns from.

The encoder no longer changes, so the two trainings do not disturb each other. A little noise on the latents makes the
decoder forgive what the transformer gets slightly wrong.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from wan_local.shapes import Grid
from wan_local.vae import WanVAE

from .dataset import shard_clips
from .draw import draw_parts
from .loop import Recipe, Stage, train
from .train_vae import picture_loss, shape_weight

BATCH = 3
NOISE = 0.06  # in units of the latents' standard deviation


def train_decoder(run: Path, vae: WanVAE, steps: int, data: dict[str, Tensor], shards: range, grid: Grid) -> None:
    """Train ``vae.decoder`` and ``vae.conv2`` in place; ``data`` are these shards of ``grid``."""
    vae.requires_grad_(False)
    trained = torch.nn.ModuleDict({"conv2": vae.conv2, "decoder": vae.decoder}).requires_grad_(True)
    vae.decoder.compile(dynamic=False)
    clips = shard_clips(grid, shards)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        picked = torch.randint(len(clips), (BATCH,))
        video, still = draw_parts([clips[i] for i in picked.tolist()], grid.frames, grid.height)
        latents = data["latents"][picked].float()
        latents = latents + NOISE * torch.rand(BATCH, 1, 1, 1, 1) * torch.randn_like(latents)
        out = vae.decode_whole(vae.denormalise(latents)).float()
        mse = (out - video).square().mean()
        return picture_loss(out - video, shape_weight(video, still)), {"psnr": 10 * math.log10(4 / mse.item())}

    train(trained, [Stage(name="decoder", steps=steps, loss=loss)], Recipe(learning_rate=1e-3, average=0.998), run)
    vae.requires_grad_(True)
