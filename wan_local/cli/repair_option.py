"""``--repair``: the finished frames are brought to the images they were made from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..progress import OnProgress
from ..settings import REPAIRS, Fit, Repair

if TYPE_CHECKING:
    from torch import Tensor

    from ..ends import Repaired
    from ..generate import Pipeline
    from ..keyframes import Keyframe


def add_to(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--repair", choices=REPAIRS[1:],
                       help="bring the finished frames to the images: by colour alone, or so that given frames are "
                            "their images (docs/ends.md); all frames are in memory then")  # fmt: skip


def repair(
    frames: Tensor, given: Mapping[int, Keyframe], how: Repair, fit: Fit, pipeline: Pipeline, on_progress: OnProgress
) -> Repaired:
    """As :func:`wan_local.ends.repair`; an image of less than full strength is only measured."""
    from .. import ends
    from ..keyframes import FULL

    images = {frame: keyframe.images[0] for frame, keyframe in given.items()}
    loose = [frame for frame, keyframe in given.items() if keyframe.strength < FULL]
    device = pipeline.device
    return ends.repair(frames, images, how, fit=fit, only_measured=loose, device=device, on_progress=on_progress)
