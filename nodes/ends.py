"""How well a clip matches the images it was made from, and a repair of it."""

from __future__ import annotations

import json
from textwrap import indent

from torch import Tensor

from ..wan_local.errors import InputError
from ..wan_local.keyframes import Keyframe, place_of
from ..wan_local.settings import MAX_REACH, REACH, REPAIRS, REPORT, Fit, Repair
from ..wan_local.shapes import latent_frames
from ..wan_local.words import counted
from . import ends_view, host, widgets
from .host import io
from .progress import CODE, Reporter, ending
from .repairs import repaired
from .sockets.image import frames_of_clip
from .sockets.keyframes import images_of_clip

SHARES = {"match colours": 0.4, "match ends": 0.6}  # of the time, roughly


class WanFLF2VEnds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VEnds",
            display_name="Wan FLF2V Ends",
            category=widgets.ROOT,
            description="Says how exactly a clip of any model starts and ends at its images and how evenly it moves, "
            "and repairs it.",
            inputs=[
                io.Image.Input("images", tooltip="The frames of one clip, from a decode, a cloud or a video."),
                widgets.fit(),
                io.Combo.Input(
                    "repair",
                    options=list(REPAIRS),
                    default=REPORT,
                    tooltip="report changes nothing. colour gives the clip the colours of its images. exact also makes "
                    "given frames their images, bit for bit, and gives their detail to the frames beside them.",
                ),
                io.Int.Input(
                    "reach",
                    default=REACH,
                    min=1,
                    max=MAX_REACH,
                    tooltip="Of exact: frames beside an image over which its detail fades; what is coarse goes twice "
                    "as far.",
                ),
                io.Boolean.Input(
                    "remove_flash",
                    default=False,
                    tooltip="Also level flashes near the ends that no image tells from true light. It takes lightning "
                    "away, too.",
                ),
                *widgets.ends_of_clip(),
                widgets.keyframes(lazy=False),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.String.Output("report", display_name="report"),
                io.String.Output("json", display_name="json"),
            ],
            is_output_node=True,
        )

    @classmethod
    @ending()
    def execute(
        cls,
        images: Tensor,
        fit: Fit,
        repair: Repair,
        reach: int,
        remove_flash: bool,
        first_image: Tensor | None = None,
        last_image: Tensor | None = None,
        keyframes: tuple[Keyframe, ...] | None = None,
    ) -> io.NodeOutput:
        frames = frames_of_clip(images, "images")
        given = _given(images_of_clip(first_image, last_image, keyframes), len(frames))
        report = Reporter(SHARES, host.compute_device())
        done = repaired(frames, given, repair, report, fit=fit, reach=reach, remove_flash=remove_flash)
        text = str(done)
        host.show_text(indent(text, CODE))
        figures = json.dumps(done.as_json(), indent=2)
        shown = ends_view.entry(done.frames, {at: one.images[0] for at, one in given.items()}, fit, done.after)
        ui = {"text": [text], ends_view.KEY: [shown]}
        return io.NodeOutput(images if repair == REPORT else done.frames, text, figures, ui=ui)


def _given(keyframes: list[Keyframe], frames: int) -> dict[int, Keyframe]:
    """Frame to the image that was given for it; of a piece of a clip, its first image."""
    found: dict[int, Keyframe] = {}
    for keyframe in keyframes:
        at = _place(keyframe, frames)
        if at in found:
            raise InputError(f"two images stand at frame {at}: {found[at].name} and {keyframe.name}; leave one out")
        found[at] = keyframe
    return found


def _place(keyframe: Keyframe, frames: int) -> int:
    """Where a clip made from it shows it; one of another length than 4n+1 was not made here, and moves nothing."""
    if latent_frames(frames) != latent_frames(frames - 1):
        return place_of(keyframe, frames)
    if not -frames <= keyframe.frame < frames:
        raise InputError(f"{keyframe.name} is at frame {keyframe.frame}, outside a clip of {counted(frames, 'frame')}")
    return keyframe.frame % frames
