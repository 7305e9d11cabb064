"""A repair of a clip's frames as nodes do it: on the host's device, with room made there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..wan_local import ends
from ..wan_local.keyframes import Keyframe
from ..wan_local.progress import OnProgress
from ..wan_local.settings import REPORT, Repair
from . import host


def repaired(
    frames: Tensor, given: Mapping[int, Keyframe], how: Repair, on_progress: OnProgress, **more: Any
) -> ends.Repaired:
    """As :func:`wan_local.ends.repair_to`."""
    device = host.compute_device()
    if how != REPORT:
        host.make_room(ends.work_bytes(*frames.shape[1:3]), device)
    return ends.repair_to(frames, given, how, device=device, on_progress=on_progress, **more)
