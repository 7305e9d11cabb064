"""VIDEO: frames in core's own class, which writes plain mp4 files with the library's writer.

Core's writer cuts colours down to the level below, leaves old versions' files without colour tags, and does not
listen to stop. Everything but a plain mp4 file is left to core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ...wan_local import video
from .. import host
from ..progress import ending, summary


class FramesVideo(host.VideoFromComponents):
    """``VIDEO`` from frames ``[F, H, W, 3]`` in 0..1; what it says of itself goes into its files."""

    tags: Mapping[str, str] = MappingProxyType({})

    def save_to(
        self, path: Any, format: Any = "auto", codec: Any = "auto", metadata: Any = None, **options: Any
    ) -> Any:
        """Write the video; arguments are core's, a stopped or failed write leaves no file."""
        asked = {name: value for name, value in options.items() if value not in (None, "sRGB")}
        if asked or not host.is_plain_mp4(path, format, codec):
            return super().save_to(path, format, codec, {**(metadata or {}), **self.tags}, **options)
        parts = self.get_components()
        tags = {name: json.dumps(value) for name, value in (metadata or {}).items()} | dict(self.tags)
        with ending():
            video.write(reported(parts.images), path, parts.frame_rate, metadata=tags)
        host.show_text(summary(parts.images, float(parts.frame_rate)))
        return None


def reported(frames: Tensor) -> Iterator[Tensor]:
    """``frames`` one by one, saying each time which is written and asking whether the user pressed stop."""
    for index in range(frames.shape[0]):
        host.stop_if_asked()
        host.show_text(f"writing frame {index + 1}/{frames.shape[0]}")
        yield frames[index : index + 1].float()


def of_frames(images: Tensor, fps: float, approximated: str = "") -> FramesVideo:
    """Frames and what was not calculated in full to make them, if it is known."""
    found = FramesVideo(host.video_components(images, fps))
    if approximated:
        found.tags = {video.APPROXIMATIONS: approximated}
    return found
