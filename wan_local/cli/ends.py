"""``python -m wan_local ends CLIP``: how well a video matches the images it was made from, and a repair of it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..errors import InputError
from ..settings import FIT, FITS, REACH, REPAIRS, REPORT, check_repair
from ..words import counted
from . import keyframe_option
from .progress_bar import ProgressBar
from .results import show

if TYPE_CHECKING:
    from ..keyframes import Keyframe

DESCRIPTION = """\
Say how exactly a video shows the images that it was made from, and how evenly it moves. With --repair, bring it to
them: "colour" by colours alone, "exact" so that given frames are their images. Any video of any model; sound is
not copied.

example:
  %(prog)s clip.mp4 --first a.png --last b.png --repair exact --output better.mp4
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "ends",
        help="measure and repair the ends of a video",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("clip", metavar="CLIP", help="the video")
    parser.add_argument("--first", metavar="IMAGE", help="image that it should start at")
    parser.add_argument("--last", metavar="IMAGE", help="image that it should end at")
    parser.add_argument("--keyframe", action="append", default=[], metavar="IMAGE@FRAME[:STRENGTH]",
                        help="image that it should show at a frame: from 0, or from the end, where -1 is the last; one "
                             "below strength 1 is only measured. One option an image")  # fmt: skip
    parser.add_argument("--repair", default=REPORT, choices=REPAIRS,
                        help="what to do about it (default: %(default)s, nothing)")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="VIDEO", help="the repaired video: .mp4, .mov or .mkv")
    parser.add_argument("--reach", type=int, metavar="FRAMES",
                        help=f'of "exact": frames beside an image that take part (default: {REACH})')  # fmt: skip
    parser.add_argument("--remove-flash", action="store_true",
                        help="also level flashes near the ends that no image tells from true light")  # fmt: skip
    parser.add_argument("--fit", default=FIT, choices=FITS, help="images of another aspect (default: %(default)s)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run, parser=parser, whole_groups=False)


def run(args: argparse.Namespace) -> None:
    _check(args)
    from .. import ends, video
    from ..parts import choose_device

    if args.output:
        video.check_path(args.output)
    device = choose_device(None if args.device == "auto" else args.device)
    frames, rate = video.read(args.clip)
    if args.output:
        video.check_fps(rate)
    bar = ProgressBar(sys.stderr)
    try:
        done = ends.repair_to(
            frames, _given(args, len(frames)), args.repair, fit=args.fit,
            reach=REACH if args.reach is None else args.reach, remove_flash=args.remove_flash, device=device,
            on_progress=bar,
        )  # fmt: skip
    finally:
        bar.close()
    if args.output:
        video.write(done.frames, args.output, rate)
    show(json.dumps(done.as_json(), indent=2) if args.json else str(done))


def _check(args: argparse.Namespace) -> None:
    """Wrong use: exit status 2."""
    keyframe_option.check_frames(args, "IMAGE@FRAME[:STRENGTH]")
    if args.repair != REPORT and not args.output:
        args.parser.error(f"--repair {args.repair} makes a new video; name it with --output")
    try:
        check_repair(args.repair, keyframe_option.shown(args), f"--repair {args.repair}")
    except InputError as error:
        args.parser.error(str(error))
    if args.repair == REPORT and args.output:
        args.parser.error("--output without --repair would copy the video; give --repair colour or exact")
    if args.repair == REPORT and args.remove_flash:
        args.parser.error("--remove-flash without --repair changes nothing; give --repair colour or exact")
    if args.repair != "exact" and args.reach is not None:
        args.parser.error("--reach without --repair exact changes nothing; give that, or leave --reach out")


def _given(args: argparse.Namespace, length: int) -> dict[int, Keyframe]:
    """Frame to image; of a finished video every frame can be named, not only each fourth."""
    found: dict[int, Keyframe] = {}
    for each in keyframe_option.read(args):
        name, frame = each.name, each.frame
        if not -length <= frame < length:
            raise InputError(
                f"{name} is outside a video of {counted(length, 'frame')}; use 0 to {length - 1}, or -1 for the last"
            )
        if frame % length in found:
            raise InputError(f"{name} is a second image for frame {frame % length}; leave one out")
        found[frame % length] = each
    return found
