"""Two clips side by side."""

from __future__ import annotations

import math
import statistics
from textwrap import indent
from typing import Any

from torch import Tensor

from ..wan_local import video
from ..wan_local.ends import psnr
from ..wan_local.words import counted
from . import host, widgets
from .host import io
from .progress import CODE, ending, summary
from .sockets.video import reported

KEY = "wan_flf2v_compare"  # of a node's ``ui``


class WanFLF2VCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VCompare",
            display_name="Wan FLF2V Compare",
            category=widgets.ROOT,
            description="Plays two videos side by side, in step and frame by frame, and says how they differ.",
            inputs=[
                io.Video.Input("video_a", tooltip="Shown on the left."),
                io.Video.Input("video_b", tooltip="Shown on the right. May have another size, length and frame rate."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    @ending()
    def execute(cls, video_a: Any, video_b: Any) -> io.NodeOutput:
        clips = [_read(name, video) for name, video in (("a", video_a), ("b", video_b))]
        (first, said_a, shown_a), (second, said_b, shown_b) = clips
        differ = difference(first, second)
        text = "\n".join([f"a: {said_a}", f"b: {said_b}", differ])
        host.show_text(indent(text, CODE))
        return io.NodeOutput(ui={"text": [text], KEY: [{"a": shown_a, "b": shown_b, "difference": differ}]})


def _read(name: str, clip: Any) -> tuple[Tensor, str, dict[str, Any]]:
    """Frames ``[F, H, W, 3]``, what they are in words, and what a page plays.

    Always written anew: any page plays it, and its frames come at an even pace, which stepping needs.
    """
    host.stop_if_asked()
    host.show_text(f"reading video_{name}")
    parts = clip.get_components()
    frames, fps = parts.images[..., :3], float(parts.frame_rate)
    path, place = host.temporary_file(".mp4")
    video.write(reported(frames), path, parts.frame_rate)
    count, height, width = frames.shape[:3]
    return frames, summary(frames, fps), {**place, "frames": count, "width": width, "height": height, "fps": fps}


def difference(first: Tensor, second: Tensor) -> str:
    """How two clips ``[F, H, W, 3]`` differ, frame by frame as far as both go, in a line."""
    if first.shape[1:] != second.shape[1:]:
        return "of different sizes, so no PSNR"
    found = [psnr(a.cpu(), b.cpu()) for a, b in zip(first, second, strict=False)]
    least, usual, frames = min(found), statistics.median(found), counted(len(found), "frame")
    if math.isinf(least):
        return f"the same in {'all ' * (len(found) > 1)}{frames}"
    return f"PSNR of {frames}: {usual:.1f} dB median, {least:.1f} dB at frame {found.index(least)}"
