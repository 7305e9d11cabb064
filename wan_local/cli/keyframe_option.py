"""``--first``, ``--last`` and ``--keyframe IMAGE@FRAME[:STRENGTH[,LOW]]``: what a person writes of a clip's images."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..keyframes import Keyframe

HELP = (
    "an image at a frame: from 0, or from the end, where -1 is the last; a frame that is no multiple of 4 is moved to "
    "the nearest. STRENGTH, 0 to 1 (default), is how strictly it counts; LOW the same for Wan2.2's low-noise expert. "
    "One option an image"
)
WRITTEN = re.compile(r"(?P<path>.+)@(?P<frame>-?\d+)(:(?P<strength>[^,:]+)(,(?P<low>[^,:]+))?)?$", re.DOTALL)


def add_to(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--first", metavar="IMAGE", help="image that the video starts at")
    group.add_argument("--last", metavar="IMAGE", help="image that the video ends at")
    group.add_argument("--keyframe", action="append", default=[], metavar="IMAGE@FRAME[:STRENGTH[,LOW]]", help=HELP)
    group.add_argument("--whole-groups", action="store_true",
                       help="of an image in the middle, mark all four frames of its latent frame and not its own "
                            "alone: for LoRAs that were trained so")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """One image as it was written; ``strength`` and ``low`` are None where nothing was."""

    name: str
    path: str
    frame: int
    strength: str | None = None
    low: str | None = None


def check(args: argparse.Namespace) -> None:
    """Wrong use is said before anything is read: exit status 2."""
    if not (args.first or args.last or args.keyframe):
        args.parser.error("no image is given; give --first, --last or --keyframe")
    check_frames(args, "IMAGE@FRAME[:STRENGTH]")


def check_frames(args: argparse.Namespace, form: str) -> None:
    """Each ``--keyframe`` names its frame; ``form`` is how it is written."""
    for text in args.keyframe:
        if WRITTEN.match(text) is None:
            args.parser.error(f"--keyframe {text} has no frame; write {form}, such as middle.png@40")


def written(args: argparse.Namespace) -> list[Written]:
    """The images of options that were checked, the first and the last before the others."""
    found = [
        Written(name=name, path=path, frame=frame)
        for name, path, frame in (("--first", args.first, 0), ("--last", args.last, -1))
        if path
    ]
    for text in args.keyframe:
        parts = WRITTEN.match(text)
        assert parts is not None  # checked
        path, frame, strength, low = parts.group("path", "frame", "strength", "low")
        found.append(Written(name=f"--keyframe {text}", path=path, frame=int(frame), strength=strength, low=low))
    return found


def shown(args: argparse.Namespace) -> list[bool]:
    """For each of :func:`written`, whether the clip is to show it as it is; errors as :func:`read`, of no image."""
    from ..keyframes import FULL

    return [each.strength is None or _number(each.name, each.strength) >= FULL for each in written(args)]


def read(args: argparse.Namespace) -> list[Keyframe]:
    """The images of a clip, read.

    Raises:
        InputError: an image that can't be read, or a strength that can't be.
    """
    from .. import images
    from ..keyframes import FULL, Keyframe

    return [
        Keyframe(
            images=images.read(each.path)[None],
            frame=each.frame,
            strength=FULL if each.strength is None else _number(each.name, each.strength),
            low_noise_strength=None if each.low is None else _number(each.name, each.low),
            whole_group=args.whole_groups,
            name=each.name,
        )
        for each in written(args)
    ]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name} has strength {text!r}; give a number from 0 to 1") from error
