"""From two images to an mp4 at 832x480, with random weights: four steps without guidance."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

import torch

from wan_local.denoiser import Denoiser
from wan_local.generate import Pipeline
from wan_local.settings import Settings
from wan_local.vae import WanVAE

from .lab import Lab

STEPS = 4


class Rows:
    """Stands for an encoder: embeddings of the right shape, whatever it is asked."""

    def __init__(self, *shape: int, device: torch.device) -> None:
        self.rows = torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.1

    def encode(self, given: object) -> torch.Tensor:
        return self.rows


def measure(lab: Lab) -> None:
    config, grid = lab.config, lab.grids["480p"]
    text = Rows(1, config.text_len, config.text_dim, device=lab.device)
    images = Rows(2, config.image_tokens // 2, config.image_dim, device=lab.device)
    with torch.device("meta"):
        vae = WanVAE(lab.vae_config)
    model = lab.transformer(torch.bfloat16)
    pipeline = Pipeline([Denoiser(transformer=model)], lab.filled(vae, torch.float32), text, images, device=lab.device)  # type: ignore[arg-type]
    first, last = torch.rand(2, 3, grid.height, grid.width)
    settings = Settings(width=grid.width, height=grid.height, length=grid.frames, steps=STEPS, guidance=1.0, seed=1)
    began = time.perf_counter()
    sampled = pipeline.generate(first, last, "a prompt", settings)
    then = time.perf_counter()
    frames = pipeline.decode(sampled)
    lab.wait()
    seconds = {name.replace(" ", "_"): round(took, 2) for name, took in sampled.seconds.items()}
    lab.tell(
        f"{STEPS} steps, 480p",
        time.perf_counter() - began,
        "s",
        **seconds,
        decode=time.perf_counter() - then,
        holds=bool(torch.isfinite(frames).all()),
    )
    if importlib.util.find_spec("av") is None:
        lab.tell("mp4", "not written", why="PyAV is not installed")
        return
    from wan_local import video

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        video.write(frames, Path(folder) / "clip.mp4")
        lab.tell("mp4 of the frames", time.perf_counter() - began, "s", expected="less: these frames are noise")
