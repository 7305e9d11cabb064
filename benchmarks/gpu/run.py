"""The parts in their order of value, each by itself: one that fails is reported and the next one runs."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from . import attention, block, correctness, environment, loading, offload, pipeline, products, ranks, tests, vae
from .lab import Lab, OutOfTime
from .report import Report

PARTS: dict[str, Callable[[Lab], None]] = {
    "environment": environment.measure,
    "attention": attention.measure,
    "correctness": correctness.measure,
    "tests": tests.measure,
    "block": block.measure,
    "model": block.measure_model,
    "pipeline": pipeline.measure,
    "vae": vae.measure,
    "offload": offload.measure,
    "products": products.measure,
    "ranks": ranks.measure,
    "compiled": block.measure_compiled,
    "loading": loading.measure,
}
RESULTS = Path(__file__).parents[1] / "results"
LEAST = 10.0  # seconds without which no part is begun


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for.

    Returns:
        0 if everything is as it has to be, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="in all (default 8)")
    parser.add_argument("--only", help=f"parts by name, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--toy", action="store_true", help="small sizes, on a CPU too; the figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results (default benchmarks/results)")
    args = parser.parse_args(arguments)
    wanted = args.only.split(",") if args.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"--only {', '.join(unknown)}: there is no such part; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available() and not args.toy:
        parser.error("torch sees no GPU; --toy runs the same code at toy size on the CPU")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    name = f"{re.sub('[^a-z0-9]+', '-', device_name.lower())}{'_toy' if args.toy else ''}_{date.today():%Y%m}"
    report = Report(args.out, name)
    lab = Lab(device=device, toy=args.toy, seconds=args.minutes * 60, report=report)
    with torch.no_grad():
        for part in [part for part in PARTS if part in wanted]:
            run_part(lab, part)
    report.close(f"{device_name}, torch {torch.__version__}, {date.today()}{', toy sizes' if args.toy else ''}")
    for result in report.failed:
        print(result.line(), file=sys.stderr)
    return 1 if report.failed else 0


def run_part(lab: Lab, part: str) -> None:
    """One part; whatever it raises becomes a result."""
    lab.part = part
    try:
        lab.need(LEAST)
        PARTS[part](lab)
    except OutOfTime:
        lab.tell("ended early", "out of time")
    except Exception as error:  # the next part says something else about this GPU
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())[:300]
        lab.tell(
            "failed", f"{type(error).__name__}: {said}", holds=False, at=f"{Path(place.filename).name}:{place.lineno}"
        )
    lab.clear()
