"""Latents to frames and a video."""

from __future__ import annotations

from typing import Any

from ..wan_local.errors import InputError
from ..wan_local.memory import check_tiling
from . import host, widgets
from .host import io
from .progress import Reporter, ending, summary
from .sockets.latent import approximated, clips
from .sockets.vae import autoencoder, decode_images
from .sockets.video import of_frames

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
                    tooltip="Side of square tiles in pixels, for GPUs too small for a whole frame. auto cuts only "
                    "if a frame does not fit; off never does. Tiles change the images a little.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    @ending()
    def execute(cls, vae: Any, latent: dict[str, Any], fps: float, tiling: str) -> io.NodeOutput:
        if tiling not in TILINGS:
            raise InputError(f"tiling={tiling!r} is not known; use {', '.join(TILINGS)}")
        report = Reporter({"decode": 1.0}, host.vae_devices()[0])
        images = decode_images(autoencoder(vae, check_tiling(tiling)), clips(latent), report, fps)
        images = images.flatten(0, 1)  # [B F, H, W, 3]: clips one after the other
        host.show_text(summary(images, fps))
        return io.NodeOutput(images, of_frames(images, fps, approximated(latent)))
