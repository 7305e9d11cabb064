"""``python -m wan_local inspect PATH``: what a weight file or folder is, and what running it will take."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import UnreadableWeights, WanError
from ..words import counted

if TYPE_CHECKING:
    from ..memory import Plan

DESCRIPTION = """\
Say what a weight file or folder holds: model, format, sizes, dtypes, memory. Of a transformer also say what making a
video with it takes on a GPU and in the host, for every way of --offload: of 81 frames, and of 161 at once and in
windows. Reads headers only."""
COLUMNS = ("text", "image", "VAE in", "sampling", "VAE out", "GPU", "host")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect", help="say what a weight file or folder is", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("path", metavar="PATH", help="a weight file, or a model folder")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    from .. import weights

    report = weights.inspect(args.path)
    broken = [part for part in (report, *report.parts) if part.error]
    plans = () if broken else _plans(args.path)
    if args.json:
        told = report.to_dict()
        json.dump({**told, "plan": [asdict(plan) for plan in plans]}, sys.stdout, indent=2)
        print()
    else:
        print("\n".join([str(report), *map(_table, plans)]))
    if broken:
        raise UnreadableWeights(broken[0].error)


def _plans(path: str) -> tuple[Plan, ...]:
    """Memory of runs in bfloat16, the last one in windows; none where the files hold no whole transformer."""
    import torch

    from ..longer import WINDOWS, Longer
    from ..memory import plan, stored
    from ..memory.plan import LONG, USUAL
    from ..weights.experts import find_pair

    try:
        found = stored.read(find_pair(path) or path, torch.bfloat16)
    except WanError:  # the report says what is wrong
        return ()
    if found is None:
        return ()
    config, weights, vae = found
    return plan(config, weights, vae=vae, grids=(*USUAL, LONG, Longer(way=WINDOWS).grid(LONG)))


def _table(plan: Plan) -> str:
    """One line a setting: gigabytes on the GPU at each stage, the most of them, and the most in the host."""
    from ..longer import OVERLAP, WINDOW

    seen = f"at most {plan.forward} in a forward (--windows {WINDOW}:{OVERLAP}), " if plan.forward else ""
    lines = [f"GB for {counted(plan.frames, 'frame')} of {plan.width}x{plan.height}, {seen}networks in bfloat16"]
    lines.append(f"  {'--offload':<10}" + "".join(f"{name:>10}" for name in COLUMNS))
    for setting in plan.settings:
        sizes = [*(stage.device for stage in setting.stages), setting.device, setting.host]
        lines.append(f"  {setting.offload!s:<10}" + "".join(f"{size / 1e9:>10.2f}" for size in sizes))
    return "\n".join(lines)
