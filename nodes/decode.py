"""Latents to frames and a video."""

from __future__ import annotations

from typing import Any

from ..wan_local.errors import InputError
from ..wan_local.shapes import SPATIAL_STRIDE
from . import host, widgets
from .host import io
from .last_word import last_word, summary
from .report import Reporter
from .video import of_frames
from .wired import WiredVAE

TILES = {"auto": None, "off": 0, "256": 256, "384": 384, "512": 512}  # side in pixels


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
                    options=list(TILES),
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
        if tiling not in TILES:
            raise InputError(f"tiling={tiling!r} is not known; use {', '.join(TILES)}")
        samples = latent["samples"]
        if samples.ndim != 5:
            raise InputError(
                f"latent has shape {list(samples.shape)}; this node decodes a clip, [batch, 16, frames, height, "
                "width]: for single pictures use VAE Decode"
            )
        tile = TILES[tiling]
        cells = None if tile is None else tile // SPATIAL_STRIDE
        wired = WiredVAE(vae, Reporter({"decode": 1.0}, host.vae_devices()[0]))
        images = wired.decode_images(samples, cells).flatten(0, 1)  # [B F, H, W, 3]: clips one after the other
        host.show_text(summary(images, fps))
        return io.NodeOutput(images, of_frames(images, fps))
