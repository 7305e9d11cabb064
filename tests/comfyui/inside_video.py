"""The video that goes to core's Save Video; inside ComfyUI's interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from inside_checks import check


@check
def a_video_stopped_while_it_is_written_leaves_no_file(nodes: Any) -> None:
    import torch

    management, show_text = nodes.host.management, nodes.host.show_text
    lines: list[str] = []

    def press_stop_at_the_third(text: str, node: str | None = None) -> None:
        lines.append(text)
        if text == "writing frame 3/8":
            management.interrupt_current_processing()

    video = nodes.sockets.video.of_frames(torch.rand(8, 32, 48, 3), 8.0)
    nodes.host.show_text = press_stop_at_the_third
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                video.save_to(str(Path(folder, "clip.mp4")), format="mp4", codec="h264")
            except management.InterruptProcessingException:
                pass
            else:
                raise AssertionError("it was written to its end")
            assert list(Path(folder).iterdir()) == []
            assert lines[-2:] == ["writing frame 3/8", "stopped"]
            lines.clear()
            nodes.host.show_text = lambda text, node=None: lines.append(text)
            video.save_to(str(Path(folder, "clip.mp4")), format="mp4", codec="h264")
            assert [path.name for path in Path(folder).iterdir()] == ["clip.mp4"]
            assert lines[-1] == "8 frames of 48x32, 1.00 s at 8 fps"
    finally:
        nodes.host.show_text = show_text
