"""Images and prompts to what a sampler is conditioned on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..wan_local.conditioning import conditions, ends_seen, image_embeddings
from ..wan_local.keyframes import Keyframe, placed, tell_of_moves
from ..wan_local.progress import Progress
from ..wan_local.settings import STILL, Fit
from ..wan_local.shapes import Grid
from ..wan_local.words import counted
from . import host, widgets
from .host import io
from .progress import Reporter, ending
from .sockets.clip_vision import SocketImageEncoder
from .sockets.conditioning import attach
from .sockets.keyframes import images_of_clip
from .sockets.vae import autoencoder


class WanFLF2VConditioning(widgets.ChecksSize, io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VConditioning",
            display_name="Wan FLF2V Conditioning",
            category=widgets.ROOT,
            description="Adds a first and a last image, and others between, to the prompts, for Wan FLF2V Sampler or "
            "core's KSampler.",
            inputs=[
                io.Conditioning.Input("positive", lazy=True, tooltip="The prompt, from CLIP Text Encode."),
                io.Conditioning.Input("negative", lazy=True, tooltip="What to stay away from, from CLIP Text Encode."),
                io.Vae.Input("vae", lazy=True, tooltip="Wan2.1 VAE. It encodes in float32."),
                *widgets.images(optional=True),
                *widgets.size(),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    lazy=True,
                    tooltip="Image encoder (CLIP ViT-H). Wan2.1 FLF2V and I2V models need it.",
                ),
                widgets.fit(),
                widgets.keyframes(),
                widgets.motion(),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
                io.Latent.Output("latent", display_name="latent"),
            ],
        )

    @classmethod
    @ending()
    def execute(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        width: int,
        height: int,
        length: int,
        fit: Fit,
        first_image: Tensor | None = None,
        last_image: Tensor | None = None,
        clip_vision: Any = None,
        keyframes: tuple[Keyframe, ...] | None = None,
        motion: float = STILL,
    ) -> io.NodeOutput:
        grid = Grid(frames=length, height=height, width=width)
        asked = images_of_clip(first_image, last_image, keyframes)
        given = placed(asked, length)
        tell_of_moves(asked, length)
        report = Reporter({"encode images": 1.0}, host.vae_devices()[0])
        report(Progress(stage="encode images", done=0, total=1))
        vae, embeddings = autoencoder(vae), None
        seen, _ = ends_seen(given, grid, 2)
        if clip_vision is not None and seen:
            embeddings = image_embeddings(SocketImageEncoder(clip_vision), seen, grid, fit)
        condition = conditions(vae, given, grid, fit=fit, motion=motion, on_progress=report)
        host.show_text(f"{counted(len(given), 'image')} encoded, for {counted(length, 'frame')} of {width}x{height}")
        latents = torch.zeros(1, vae.config.z_dim, *grid.latent_shape, device=host.result_device())
        rgb = vae.config.latent_rgb
        positive, negative = (attach(prompt, condition, embeddings, rgb) for prompt in (positive, negative))
        return io.NodeOutput(positive, negative, {"samples": latents})
