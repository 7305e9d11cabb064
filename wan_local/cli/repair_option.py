"""``--repair``: the finished frames are brought to the images they were made from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..progress import OnProgress
from ..settings import REPAIRS, Fit, Repair, check_repair

if TYPE_CHECKING:
    from torch import Tensor

    from ..ends import Repaired
    from ..generate import Pipeline
    from ..keyframes import Keyframe


def add_to(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--repair", choices=REPAIRS[1:],
                       help="bring the finished frames to the images: by colour alone, or so that given frames are "
                            "their images (docs/ends.md); all frames are in memory then")  # fmt: skip


def check(args: argparse.Namespace, given: Mapping[int, Keyframe]) -> None:
    """Raise :class:`InputError` for a repair that no image of the clip allows."""
    check_repair(args.repair, [keyframe.shown for keyframe in given.values()], f"--repair {args.repair}")


def repair(
    frames: Tensor, given: Mapping[int, Keyframe], how: Repair, fit: Fit, pipeline: Pipeline, on_progress: OnProgress
) -> Repaired:
    """As :func:`wan_local.ends.repair_to`, on the pipeline's device."""
    from .. import ends

    return ends.repair_to(frames, given, how, fit=fit, device=pipeline.device, on_progress=on_progress)
