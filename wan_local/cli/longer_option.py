"""``--riflex`` and ``--windows``: ways to make a clip that is longer than those of training."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..longer import OVERLAP, RIFLEX, WINDOW, WINDOWS, Longer


def add_to(group: argparse._ArgumentGroup) -> None:
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--riflex", action="store_true",
                      help="slow the model's sense of time down in a clip longer than those it was trained on, against "
                           "a second half that repeats the first")  # fmt: skip
    ways.add_argument("--windows", metavar="FRAMES[:OVERLAP]",
                      help=f"make a long clip in windows of so many frames (4n+1) that overlap, such as "
                           f"{WINDOW}:{OVERLAP}: as much memory as a window takes, and about as much to "
                           "calculate as one pass")  # fmt: skip


def read(args: argparse.Namespace) -> Longer:
    """What was asked for.

    Raises:
        InputError: windows that can't be.
    """
    if args.windows is None:
        return Longer(way=RIFLEX) if args.riflex else Longer()
    window, colon, overlap = args.windows.partition(":")
    if not window.isdecimal() or (colon and not overlap.isdecimal()):
        raise InputError(f"--windows {args.windows} can't be read; write FRAMES or FRAMES:OVERLAP, such as 81:28")
    return Longer(way=WINDOWS, window=int(window), overlap=int(overlap) if colon else OVERLAP)
