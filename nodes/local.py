"""First picture, last picture and a prompt to a video, on this machine."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..wan_local.settings import Settings, official_negative_prompt
from ..wan_local.shapes import Grid
from . import host, keep, widgets
from .convert import picture
from .host import io
from .report import Reporter
from .sockets import Model, WanModel
from .video import of_frames
from .wired import pipeline

SHARES = {"encode text": 0.03, "encode images": 0.05, "sample": 0.84, "decode": 0.08}  # of the time, roughly


class WanFLF2VLocal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLocal",
            display_name="Wan FLF2V (local)",
            category=widgets.ROOT,
            description="Makes a video that starts at one picture and ends at another, with Wan2.1 on this machine.",
            search_aliases=[
                "wan",
                "flf2v",
                "first last frame",
                "image to video",
                "interpolate",
                "morph",
                "transition",
            ],
            inputs=[
                Model.Input("model", tooltip="From Load Wan FLF2V Pipeline."),
                io.Clip.Input("clip", tooltip="Text encoder (umT5)."),
                io.ClipVision.Input("clip_vision", tooltip="Image encoder (CLIP ViT-H)."),
                io.Vae.Input("vae", tooltip="Wan2.1 VAE."),
                *widgets.pictures(),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip="What happens in between."),
                io.String.Input(
                    "negative_prompt",
                    default=official_negative_prompt(),
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What to stay away from. The default is the one the model was published with. "
                    "Not used at guidance 1.",
                ),
                *widgets.size(),
                widgets.fps(),
                *widgets.sampling(),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None, length: int | None) -> bool | str:
        return widgets.check_size(width, height, length)

    @classmethod
    def execute(
        cls,
        model: WanModel,
        clip: Any,
        clip_vision: Any,
        vae: Any,
        first_image: Tensor,
        last_image: Tensor,
        prompt: str,
        negative_prompt: str,
        width: int,
        height: int,
        length: int,
        fps: float,
        seed: int,
        steps: int,
        guidance: float,
        shift: float,
        sampler: str,
    ) -> io.NodeOutput:
        grid = Grid(frames=length, height=height, width=width)
        made = pipeline(model, clip, clip_vision, vae, grid)
        report = Reporter(SHARES, model.device)
        settings = Settings(
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            length=length,
            seed=seed,
            steps=steps,
            guidance=guidance,
            shift=shift,
            sampler=sampler,
        )
        pictures = picture(first_image, "first_image"), picture(last_image, "last_image")
        sampled = made.generate(*pictures, prompt, settings, report)
        # Nobody else has these latents, so they are kept when the user presses stop, too.
        with keep.on_failure(made.vae.normalise, made.vae.denormalise(sampled.latents), stopped=True):
            images = made.decode(sampled, report).to(host.result_device())
        return io.NodeOutput(images, of_frames(images, fps))
