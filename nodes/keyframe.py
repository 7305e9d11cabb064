"""One more image of a clip, at its frame."""

from __future__ import annotations

from torch import Tensor

from ..wan_local.keyframes import FULL, Keyframe
from . import host, widgets
from .host import io
from .sockets.image import all_images
from .sockets.keyframes import Keyframes

SAME = -1.0  # of low_noise_strength


class WanFLF2VKeyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = {"max": 1.0, "step": 0.01}
        return host.schema(
            node_id="WanFLF2VKeyframe",
            display_name="Wan FLF2V Keyframe",
            category=widgets.ROOT,
            description="Puts an image, or a piece of a clip, at a frame of the video. Several are connected in a row.",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Any size. A batch of 5, 9, 13 ... images is a piece of a clip that begins at the frame; "
                    "at frame 0 it is continued.",
                ),
                io.Int.Input(
                    "frame",
                    default=40,
                    min=-widgets.LONGEST,
                    max=widgets.LONGEST - 1,
                    tooltip="From 0; -1 is the last frame, -2 the one before. Moved to the nearest multiple of 4, of "
                    "which every latent frame has one.",
                ),
                io.Float.Input(
                    "strength",
                    default=FULL,
                    min=0.0,
                    **strength,
                    tooltip="How strictly the image counts, as the mask says it. 0 is as if it were not connected.",
                ),
                io.Float.Input(
                    "low_noise_strength",
                    default=SAME,
                    min=SAME,
                    **strength,
                    tooltip="The same for Wan2.2's low-noise expert alone; -1 takes strength.",
                ),
                Keyframes.Input("keyframes", optional=True, tooltip="Keyframes before this one, in any order."),
                io.Boolean.Input(
                    "whole_group",
                    default=False,
                    optional=True,
                    tooltip="Mark all four frames of the latent frame, not the image's own alone: for LoRAs that were "
                    "trained so. Makes no difference at the first and the last frame.",
                ),
            ],
            outputs=[Keyframes.Output("keyframes", display_name="keyframes")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        frame: int,
        strength: float,
        low_noise_strength: float,
        keyframes: tuple[Keyframe, ...] = (),
        whole_group: bool = False,
    ) -> io.NodeOutput:
        keyframe = Keyframe(
            images=all_images(image, "image"),
            frame=frame,
            strength=strength,
            low_noise_strength=None if low_noise_strength < 0 else low_noise_strength,
            whole_group=whole_group,
            name=f"keyframe {len(keyframes) + 1}",
        )
        return io.NodeOutput((*keyframes, keyframe))
