"""First picture, last picture and a prompt to a video, on this machine."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..wan_local.errors import InputError
from ..wan_local.sampling import SAMPLERS
from ..wan_local.settings import GUIDANCE, LENGTH, SAMPLER, SHIFT, STEPS, official_negative_prompt
from ..wan_local.shapes import PIXEL_MULTIPLE, TEMPORAL_STRIDE, Grid, check_frames, check_side
from . import host
from .convert import picture
from .host import io
from .report import Reporter
from .sockets import Model, WanModel
from .wired import pipeline

SHARES = {"encode text": 0.03, "encode images": 0.05, "sample": 0.84, "decode": 0.08}  # of the time, roughly
MAX_SIDE = 8192
MAX_LENGTH = 1025  # 64 seconds


class WanFLF2VLocal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLocal",
            display_name="Wan FLF2V (local)",
            category="WanFLF2V",
            description="Makes a video that starts at one picture and ends at another, with Wan2.1 "
            "on this machine.",
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
                io.Image.Input(
                    "first_image", tooltip="The video starts here. Cut to the aspect of the video."
                ),
                io.Image.Input("last_image", tooltip="The video ends here. Cut to the aspect of the video."),
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, tooltip="What happens in between."
                ),
                io.String.Input(
                    "negative_prompt",
                    default=official_negative_prompt(),
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What to stay away from. The default is the one the model was published with. "
                    "Not used at guidance 1.",
                ),
                io.Int.Input("width", default=1280, min=PIXEL_MULTIPLE, max=MAX_SIDE, step=PIXEL_MULTIPLE),
                io.Int.Input("height", default=720, min=PIXEL_MULTIPLE, max=MAX_SIDE, step=PIXEL_MULTIPLE),
                io.Int.Input(
                    "length",
                    default=LENGTH,
                    min=5,
                    max=MAX_LENGTH,
                    step=TEMPORAL_STRIDE,
                    tooltip="Frames of the video: 4n+1. The model was trained on 81.",
                ),
                io.Float.Input(
                    "fps", default=16.0, min=1.0, max=120.0, step=0.01, tooltip="Frames a second."
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("steps", default=STEPS, min=1, max=1000, tooltip="More is slower and finer."),
                io.Float.Input(
                    "guidance",
                    default=GUIDANCE,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="How strictly to follow the prompt. 1 takes one forward a step instead of two.",
                ),
                io.Float.Input(
                    "shift",
                    default=SHIFT,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    tooltip="Where the steps go: higher spends more of them on the layout. "
                    "16 for 720p, 3 to 5 for 480p.",
                ),
                io.Combo.Input("sampler", options=list(SAMPLERS), default=SAMPLER),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None, length: int | None) -> bool | str:
        """Refuse impossible sizes before anything runs; None is a linked value, which ``execute`` checks.

        Naming an input here turns the host's own range check off for it, so the range is checked here too.
        """
        try:
            for name, side in (("width", width), ("height", height)):
                if side is not None:
                    check_side(name, side)
                    check_range(name, side, PIXEL_MULTIPLE, MAX_SIDE)
            if length is not None:
                check_frames(length)
                check_range("length", length, TEMPORAL_STRIDE + 1, MAX_LENGTH)
        except InputError as error:
            return str(error)
        return True

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
        frames = pipeline(model, clip, clip_vision, vae, grid)(
            picture(first_image, "first_image"),
            picture(last_image, "last_image"),
            prompt,
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            length=length,
            seed=seed,
            steps=steps,
            guidance=guidance,
            shift=shift,
            sampler=sampler,
            on_progress=Reporter(SHARES, model.device),
        )
        images = frames.to(host.result_device())
        return io.NodeOutput(images, host.video(images, fps))


def check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}={value} is out of range; use {low} to {high}")
