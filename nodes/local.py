"""Images and a prompt to a video, on this machine."""

from __future__ import annotations

import time
from textwrap import indent
from typing import Any

from torch import Tensor

from ..wan_local.keyframes import Keyframe, placed
from ..wan_local.settings import check_repair, published_negative_prompt
from . import ends_view, host, kept_latents, run_speed, widgets
from .host import io
from .pipelines import pipeline_of, settings_of
from .progress import CODE, ending, summary
from .repairs import repaired
from .sockets.keyframes import images_of_clip
from .sockets.model import Model, WanModel
from .sockets.video import of_frames


class WanFLF2VLocal(widgets.ChecksSize, io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLocal",
            display_name="Wan FLF2V (local)",
            category=widgets.ROOT,
            description="Makes a video that starts at one image and ends at another, with Wan on this machine.",
            inputs=[
                Model.Input("model", lazy=True, tooltip="From Load Wan FLF2V Pipeline."),
                io.Clip.Input("clip", lazy=True, tooltip="Text encoder (umT5)."),
                io.Vae.Input("vae", lazy=True, tooltip="Wan2.1 VAE."),
                *widgets.images(optional=True),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip="What happens in between."),
                io.String.Input(
                    "negative_prompt",
                    default=published_negative_prompt(),
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What to stay away from. The default is the one the model was published with. "
                    "Not used at guidance 1.",
                ),
                *widgets.size(),
                widgets.fps(),
                *widgets.sampling(),
                io.ClipVision.Input(
                    "clip_vision",
                    lazy=True,
                    optional=True,
                    tooltip="Image encoder (CLIP ViT-H), for Wan2.1. Wan2.2 has none.",
                ),
                widgets.keyframes(),
                widgets.fit(optional=True),
                widgets.repair(),
                widgets.motion(),
                *widgets.longer(),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    @ending()
    def execute(
        cls,
        model: WanModel,
        clip: Any,
        vae: Any,
        prompt: str,
        length: int,
        fps: float,
        first_image: Tensor | None = None,
        last_image: Tensor | None = None,
        clip_vision: Any = None,
        keyframes: tuple[Keyframe, ...] | None = None,
        repair: str = widgets.NO_REPAIR,
        **chosen: Any,
    ) -> io.NodeOutput:
        asked = images_of_clip(first_image, last_image, keyframes)
        given = placed(asked, length)
        check_repair(repair, [each.shown for each in given.values()])
        began = time.perf_counter()
        settings = settings_of(model, length, **chosen)
        has_ends = not given.keys().isdisjoint((0, length - 1))
        pipeline, report = pipeline_of(model, clip, vae, clip_vision, settings, has_ends=has_ends)
        sampled = pipeline.generate(None, None, prompt, settings, report, keyframes=asked)
        # Nobody else has these latents, so they are kept when the user presses stop, too.
        normalise, latents = pipeline.vae.normalise, pipeline.vae.denormalise(sampled.latents)
        with kept_latents.on_failure(normalise, latents, fps=fps, stopped=True):
            images = pipeline.decode(sampled, report).to(host.result_device())
            seconds = time.perf_counter() - began
            done = None if repair == widgets.NO_REPAIR else repaired(images, given, repair, report, fit=settings.fit)
        text = f"{summary(images, fps)}, seed {settings.seed}; made in {seconds:.0f} s, {sampled.approximated}"
        pace = run_speed.told(model, sampled.grid, settings.guidance, report.step_seconds, sampled.approximated)
        text, measured = "\n".join(filter(None, (text, pace))), None
        if done is not None:
            images, measured, text = done.frames, done.after, f"{text}\n\n{indent(str(done), CODE)}"
        host.show_text(text)
        shown = ends_view.of_clip(images, {at: one.images[0] for at, one in given.items()}, settings.fit, measured)
        return io.NodeOutput(images, of_frames(images, fps, sampled.approximated), ui={ends_view.KEY: shown})
