"""How well a clip matches the images it was made from, and a repair of it."""

from __future__ import annotations

import json
from dataclasses import replace
from textwrap import indent

from torch import Tensor

from ..wan_local.errors import InputError
from ..wan_local.keyframes import Keyframe, place_of, tell_of_moves
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
        asked = images_of_clip(first_image, last_image, keyframes)
        given = _given(asked, len(frames))
        if _made_here(len(frames)):
            tell_of_moves(asked, len(frames))
        report = Reporter(SHARES, host.compute_device())
        done = repaired(frames, given, repair, report, fit=fit, reach=reach, remove_flash=remove_flash)
        text = str(done)
        host.show_text(indent(text, CODE))
        figures = json.dumps(done.as_json(), indent=2)
        shown = ends_view.entry(done.frames, {at: one.images[0] for at, one in given.items()}, fit, done.after)
        ui = {"text": [text], ends_view.KEY: [shown]}
        return io.NodeOutput(images if repair == REPORT else done.frames, text, figures, ui=ui)


def _given(keyframes: list[Keyframe], frames: int) -> dict[int, Keyframe]:
    """Frame to the one image that was given for it; a piece of a clip gives one to each frame from its own on."""
    found: dict[int, Keyframe] = {}
    for keyframe in keyframes:
        start, last = _place(keyframe, frames), len(keyframe.images) - 1
        if start + last >= frames:
            raise InputError(
                f"{keyframe.name} is a piece of {counted(last + 1, 'frame')} from frame {start} on, and the clip ends "
                f"at frame {frames - 1}; give fewer images"
            )
        for at, image in enumerate(keyframe.images.split(1), start):
            if at in found:
                raise InputError(f"two images stand at frame {at}: {found[at].name} and {keyframe.name}; leave one out")
            found[at] = replace(keyframe, images=image)
    return found


def _place(keyframe: Keyframe, frames: int) -> int:
    """Where a clip made from it shows it."""
    if _made_here(frames):
        return place_of(keyframe, frames)
    if not -frames <= keyframe.frame < frames:
        raise InputError(f"{keyframe.name} is at frame {keyframe.frame}, outside a clip of {counted(frames, 'frame')}")
    return keyframe.frame % frames


def _made_here(frames: int) -> bool:
    """Whether a clip may be one of Wan's, which moves images to every fourth frame: of 4n+1 frames."""
    return latent_frames(frames) != latent_frames(frames - 1)
