"""Encoding and decoding at both sizes: time, memory, and what the plan says of it."""

from __future__ import annotations

import copy

import torch

from wan_local.memory.activations import vae_decode_work, vae_encode_work
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

from .lab import GIB, Lab, kind

SEEN = {
    ("decode", "720p", 4): "7.9 on an H100 before",
    ("decode", "720p", 2): "4.9 before",
    ("encode", "720p", 4): "4.0",
    ("decode", "480p", 4): "3.3 before",
    ("decode", "480p", 2): "2.05 before",
    ("encode", "480p", 4): "1.7",
}


def measure(lab: Lab) -> None:
    with torch.device("meta"):
        bare = WanVAE(lab.vae_config)
    for size, grid in lab.grids.items():
        for dtype in (torch.bfloat16, torch.float32):
            lab.need(40)
            vae = lab.filled(copy.deepcopy(bare), dtype)
            for pace in (1, 2):
                decode(lab, vae, size, grid, dtype, pace)
            if dtype == torch.float32:
                encode(lab, vae, size, grid)


def decode(lab: Lab, vae: WanVAE, size: str, grid: Grid, dtype: torch.dtype, pace: int) -> None:
    """``pace`` latent frames at once; all that uses the VAE takes one."""
    latents = lab.noise(1, vae.config.z_dim, *grid.latent_shape, dtype=dtype)
    before = lab.clear()
    seconds = lab.timed(lambda: [None for _ in vae.decode_stream(latents, pace)], rounds=1)
    work = vae_decode_work(vae.config, grid.latent_shape, dtype.itemsize, pace)
    tell(lab, "decode" if pace == 1 else "decode by twos", size, dtype, seconds, work, before)


def encode(lab: Lab, vae: WanVAE, size: str, grid: Grid) -> None:
    clip = torch.zeros(1, 3, grid.frames, grid.height, grid.width, device=lab.device)
    before = lab.clear()
    seconds = lab.timed(lambda: vae.encode(clip), rounds=1)
    tell(lab, "encode", size, clip.dtype, seconds, vae_encode_work(vae.config, grid.latent_shape) - clip.nbytes, before)


def tell(lab: Lab, what: str, size: str, dtype: torch.dtype, seconds: float, plan: int, before: float) -> None:
    peak, planned = lab.peak() - before, plan / GIB
    lab.tell(
        f"{what} {kind(dtype)}, {size}",
        seconds,
        "s",
        peak_GB=peak,
        plan_GB=planned,
        reserved_GB=lab.reserved(),
        expected=SEEN.get((what, size, dtype.itemsize), ""),
        holds=None if lab.toy else peak <= 1.1 * planned,
    )
