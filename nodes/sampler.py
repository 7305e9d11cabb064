"""Noise to latents, under two prompts and two images."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from ..wan_local.config import TransformerConfig
from ..wan_local.denoiser import Denoiser, velocity_of
from ..wan_local.errors import InputError
from ..wan_local.progress import Progress
from ..wan_local.sampling import denoise, initial_noise, make_sampler
from ..wan_local.shapes import SPATIAL_STRIDE, Grid, video_frames
from . import conds, host, widgets
from .host import io
from .last_word import last_word
from .report import Reporter
from .sockets import Model, WanModel
from .wired import wired


class WanFLF2VSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VSampler",
            display_name="Wan FLF2V Sampler",
            category=widgets.ROOT,
            description="Samples a clip between two images with Wan2.1's own flow-matching samplers.",
            inputs=[
                Model.Input("model", tooltip="From Load Wan FLF2V Model or Pipeline."),
                io.Conditioning.Input(
                    "positive", tooltip="From Wan FLF2V Conditioning or core's WanFirstLastFrameToVideo."
                ),
                io.Conditioning.Input("negative", tooltip="From the same node. Not used at guidance 1."),
                io.Latent.Input("latent", tooltip="From the same node. Gives the size; its content is not used."),
                *widgets.sampling(),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent")],
        )

    @classmethod
    @last_word()
    def execute(
        cls,
        model: WanModel,
        positive: Any,
        negative: Any,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        guidance: float,
        shift: float,
        sampler: str,
    ) -> io.NodeOutput:
        config = model.transformer.config
        grid, batch = size_of(latent, config)
        given = {"positive": positive} if guidance == 1 else {"positive": positive, "negative": negative}
        read = [conds.read(conditioning, name, config, grid.latent_shape) for name, conditioning in given.items()]
        began, report = time.perf_counter(), Reporter({"sample": 1.0}, model.device)
        report(Progress(stage="sample", done=0, total=steps))  # the first step may take long
        noise = initial_noise(grid, config.out_dim, seed, batch).to(model.device)
        latents = denoise(
            velocity_of(
                [Denoiser(transformer=wired(model, grid, batch))], [cond.to(model.device) for cond in read], guidance
            ),
            noise,
            make_sampler(sampler, steps, shift),
            report,
        )
        host.show_text(
            f"latent of {grid.frames} frames of {grid.width}x{grid.height}, seed {seed}, {steps} steps of {sampler}; "
            f"sampled in {time.perf_counter() - began:.0f} s"
        )
        return io.NodeOutput({"samples": host.denormalise_latents(latents).to(host.result_device())})


def size_of(latent: dict[str, Any], config: TransformerConfig) -> tuple[Grid, int]:
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
