"""``--first``, ``--last`` and ``--keyframe IMAGE@FRAME[:STRENGTH[,LOW]]``: what a person writes of a clip's images."""

from __future__ import annotations

import argparse
import re
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


def check(args: argparse.Namespace) -> None:
    """Wrong use is said before anything is read: exit status 2."""
    if not (args.first or args.last or args.keyframe):
        args.parser.error("no image is given; give --first, --last or --keyframe")
    for text in args.keyframe:
        if WRITTEN.match(text) is None:
            args.parser.error(f"--keyframe {text} has no frame; write IMAGE@FRAME[:STRENGTH], such as middle.png@40")


def paths(args: argparse.Namespace) -> list[str]:
    """Where the images lie."""
    named = [written["path"] for text in args.keyframe if (written := WRITTEN.match(text)) is not None]
    return [path for path in (args.first, args.last, *named) if path]


def read(args: argparse.Namespace) -> list[Keyframe]:
    """The images of a clip, read.

    Raises:
        InputError: an image that can't be read, or a strength that can't be.
    """
    from .. import images
    from ..keyframes import FIRST, LAST, Keyframe

    found = [
        Keyframe(images=images.read(path)[None], frame=frame, name=name)
        for name, path, frame in (("--first", args.first, FIRST), ("--last", args.last, LAST))
        if path
    ]
    for text in args.keyframe:
        written = WRITTEN.match(text)
        assert written is not None  # checked
        name = f"--keyframe {text}"
        strength, low = (None if each is None else _number(name, each) for each in written.group("strength", "low"))
        found.append(
            Keyframe(
                images=images.read(written["path"])[None],
                frame=int(written["frame"]),
                strength=1.0 if strength is None else strength,
                low_noise_strength=low,
                whole_group=args.whole_groups,
                name=name,
            )
        )
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name} has strength {text!r}; give a number from 0 to 1") from error
