"""Latents to frames and a video."""

from __future__ import annotations

from typing import Any

from ..wan_local.errors import InputError
from ..wan_local.memory import check_tiling
from . import host, widgets
from .host import io
from .last_word import last_word, summary
from .report import Reporter
from .vae import decode_images
from .video import of_frames
from .wired import wired_vae

TILINGS = ("auto", "off", "256", "384", "512")


class WanFLF2VDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VDecode",
            display_name="Wan FLF2V Decode",
            category=widgets.ROOT,
            description="Decodes latents a few frames at a time, so that memory does not grow with the length.",
            inputs=[
                io.Vae.Input("vae", tooltip="Wan2.1 VAE."),
                io.Latent.Input("latent", tooltip="From a sampler."),
                widgets.fps(),
                io.Combo.Input(
                    "tiling",
                    options=list(TILINGS),
                    default="auto",
                    tooltip="Side of square tiles in pixels, for cards too small for a whole frame. auto cuts only "
                    "if a frame does not fit; off never does. Tiles change the picture a little.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    @last_word()
    def execute(cls, vae: Any, latent: dict[str, Any], fps: float, tiling: str) -> io.NodeOutput:
        if tiling not in TILINGS:
            raise InputError(f"tiling={tiling!r} is not known; use {', '.join(TILINGS)}")
        samples = latent["samples"]
        if samples.ndim != 5:
            raise InputError(
                f"latent has shape {list(samples.shape)}; this node decodes a clip, [batch, 16, frames, height, "
                "width]: for single pictures use VAE Decode"
            )
        coder = wired_vae(vae, check_tiling(tiling))
        images = decode_images(coder, samples, Reporter({"decode": 1.0}, host.vae_devices()[0]), fps)
        images = images.flatten(0, 1)  # [B F, H, W, 3]: clips one after the other
        host.show_text(summary(images, fps))
        return io.NodeOutput(images, of_frames(images, fps))
