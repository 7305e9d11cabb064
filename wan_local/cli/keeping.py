"""Latents of a run that failed behind sampling, and the commands that go on from them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..settings import FIT
from . import keyframe_option, to_paste

if TYPE_CHECKING:
    from ..generate import Sampled
    from ..keyframes import Keyframe


def keep(sampled: Sampled, args: argparse.Namespace, given: Mapping[int, Keyframe]) -> None:
    """A failed decode must not lose the long part of a run."""
    from .. import kept, video

    path = Path(args.output).with_suffix(kept.SUFFIX)
    try:
        kept.write(
            path,
            sampled.latents,
            {"seed": str(sampled.settings.seed), video.APPROXIMATIONS: sampled.approximated},
        )
    except OutputError as error:
        print(f"the latents could not be kept: {error}", file=sys.stderr)
        return
    again = ["decode", str(path), "--model", args.vae or args.model, "--output", args.output, "--fps", str(args.fps)]
    again += [] if args.device == "auto" else ["--device", args.device]
    again += [] if args.vae_dtype == "auto" else ["--vae-dtype", args.vae_dtype]
    again += [] if args.tiling == "auto" else ["--tiling", args.tiling]
    print(f"latents kept in {path}; to go on: {to_paste(again)}", file=sys.stderr)
    if args.repair:
        print(f"then, for the repair: {to_paste(_repair(args, given))}", file=sys.stderr)


def _repair(args: argparse.Namespace, given: Mapping[int, Keyframe]) -> list[str]:
    """What repairs the video afterwards, where it was written without: words of ``ends``, which writes it anew.

    Args:
        args: with a repair.
        given: frame to image; those of less than full strength, which are only measured, are left out.
    """
    paths = {each.name: each.path for each in keyframe_option.written(args)}
    words = ["ends", args.output]
    for frame, keyframe in given.items():
        if keyframe.shown:
            path = paths[keyframe.name]
            own = keyframe.name in ("--first", "--last")
            words += [keyframe.name, path] if own else ["--keyframe", f"{path}@{frame}"]
    words += ["--repair", args.repair, "--output", args.output]
    words += [] if args.fit == FIT else ["--fit", args.fit]
    return words + ([] if args.device == "auto" else ["--device", args.device])
