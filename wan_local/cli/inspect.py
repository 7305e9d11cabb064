"""``python -m wan_local inspect PATH``: what a weight file or folder is."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..errors import UnreadableWeights


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what a weight file or folder is",
        description="Say what a weight file or folder holds: model, format, sizes, dtypes, memory. Reads headers only.",
        allow_abbrev=False,
    )
    parser.add_argument("path", metavar="PATH", help="a weight file, or a model folder")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    from .. import weights

    report = weights.inspect(args.path)
    if args.json:
        json.dump(report.to_dict(), sys.stdout, indent=2)
        print()
    else:
        print(report)
    broken = [part for part in (report, *report.parts) if part.error]
    if broken:
        raise UnreadableWeights(f"{broken[0].path}: {broken[0].error}")
