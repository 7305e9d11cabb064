"""Images, one after the other, to one video, on this machine."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..wan_local.chain import Chain, segments_of, split_prompts, tell_of_stills
from ..wan_local.frames import collect
from ..wan_local.settings import published_negative_prompt
from ..wan_local.words import counted
from . import host, widgets
from .host import io
from .pipelines import pipeline_of, settings_of
from .progress import ending, summary
from .repairs import repaired
from .sockets.image import all_images
from .sockets.model import Model, WanModel
from .sockets.sampled import name_of_weights
from .sockets.video import of_frames

FOLDER = "chains"  # of what is kept, in the folder of results
LENGTH = "segment_length"


class WanFLF2VChain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        width, height, length = widgets.size(LENGTH, "each clip")
        return host.schema(
            node_id="WanFLF2VChain",
            display_name="Wan FLF2V Chain",
            category=widgets.ROOT,
            description="Makes a video that goes from image to image, a clip from each to the next. Clips are kept, so "
            "that it goes on after a stop, and only what changed is made again.",
            inputs=[
                Model.Input("model", lazy=True, tooltip="From Load Wan FLF2V Pipeline or Model."),
                io.Clip.Input("clip", lazy=True, tooltip="Text encoder (umT5)."),
                io.Vae.Input("vae", lazy=True, tooltip="Wan2.1 VAE."),
                io.Image.Input("images", lazy=True, tooltip="A batch of 2 or more; the video passes them in order."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What happens. One text for all clips, or one for each, with a line --- between them.",
                ),
                io.String.Input(
                    "negative_prompt",
                    default=published_negative_prompt(),
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What to stay away from. The default is the one the model was published with. "
                    "Not used at guidance 1.",
                ),
                width,
                height,
                length,
                widgets.fps(),
                *widgets.sampling(),
                widgets.fit(),
                io.Boolean.Input("loop", default=False, tooltip="Go from the last image back to the first."),
                io.ClipVision.Input(
                    "clip_vision",
                    lazy=True,
                    optional=True,
                    tooltip="Image encoder (CLIP ViT-H), for Wan2.1. Wan2.2 has none.",
                ),
                widgets.motion(),
                widgets.repair(),
                *widgets.longer(),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Video.Output("video", display_name="video"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, segment_length: int | None) -> bool | str:
        return widgets.length_refused(segment_length, LENGTH) or True

    @classmethod
    def check_lazy_status(cls, width: int, height: int, segment_length: int, **lazy: Any) -> list[str]:
        widgets.check_size(width, height, segment_length, LENGTH)
        return widgets.missing(lazy)

    @classmethod
    @ending()
    def execute(
        cls,
        model: WanModel,
        clip: Any,
        vae: Any,
        images: Tensor,
        prompts: str,
        segment_length: int,
        fps: float,
        loop: bool,
        clip_vision: Any = None,
        repair: str = widgets.NO_REPAIR,
        **chosen: Any,
    ) -> io.NodeOutput:
        segments = segments_of(list(all_images(images, "images")), split_prompts(prompts), loop=loop)
        began = time.perf_counter()
        settings = settings_of(model, segment_length, **chosen)
        pipeline, report = pipeline_of(model, clip, vae, clip_vision, settings)
        tell_of_stills(segments, segment_length)
        folder, name = _place(model, clip, vae, clip_vision)
        chain = Chain(pipeline, segments, settings, loop=loop, folder=folder, model=name)
        made = chain.made_before()
        sampled, joins = chain.sample(report), chain.joins()
        decoded, told = chain.decode_stream(sampled, report), ""
        if repair != widgets.NO_REPAIR:
            decoded, told = chain.repaired(decoded, partial(repaired, how=repair, on_progress=report, fit=settings.fit))
        frames = collect(joins.passing(decoded), chain.frames).to(host.result_device())
        before = f", {made} of them made before" if made else ""
        lines = [
            f"{counted(len(segments), 'clip')}{before}: {summary(frames, fps)}, seed {settings.seed}; "
            f"made in {time.perf_counter() - began:.0f} s, {sampled[0].approximated}",
            *map(str, joins.report()),
            *told.splitlines(),
        ]
        host.show_text("\n".join(lines))
        return io.NodeOutput(frames, of_frames(frames, fps, sampled[0].approximated), "\n".join(lines))


def _place(model: Any, clip: Any, vae: Any, clip_vision: Any) -> tuple[Path | None, str]:
    """Where clips are kept, and the name of all that makes them; nowhere, if something has no name."""
    names = [model.named, *map(name_of_weights, (clip, vae, clip_vision))]
    if None in names:
        host.notify("the clips are not kept, since a connected model does not say what it was made from")
        return None, ""
    return host.results_folder() / FOLDER, " ".join(map(str, names))
