"""``python -m wan_local bench``: how fast a step is on this GPU at one size, what it could be, and why it is not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InputError
from ..settings import LENGTH, STEPS
from ..words import counted
from .dtypes import DTYPES, dtype_of

if TYPE_CHECKING:
    from ..speed import Speed

DESCRIPTION = """\
Say how long a sampling step of the 14B model takes on this GPU at your size, where its time goes, and what this GPU
could do. Loads no weights: one block with random ones is timed, which takes seconds."""
SLOW_ATTENTION = 0.6  # of the rate of a product, under which a better kernel would show
LARGE_REST = 0.12  # of a block, over which fusing it would show


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", help="say how fast this GPU is", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--width", type=int, default=1280, metavar="PIXELS", help="multiple of 16 (default: 1280)")
    parser.add_argument("--height", type=int, default=720, metavar="PIXELS", help="multiple of 16 (default: 720)")
    parser.add_argument("--length", type=int, default=LENGTH, metavar="FRAMES", help="4n+1 (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="of the clip (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES[1:], default="bfloat16", help="of the networks (default: bfloat16)")
    parser.add_argument(
        "--attention", default="auto", metavar="NAME", help="kernel (default: auto, the best exact one)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="cuda, cuda:1 (default: auto)")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    import torch

    from .. import speed
    from ..attention import choose
    from ..config import WAN_FLF2V_14B
    from ..parts import choose_device
    from ..shapes import Grid

    grid = Grid(frames=args.length, height=args.height, width=args.width)
    device = choose_device(None if args.device == "auto" else args.device)
    if device.type != "cuda":
        raise InputError(f"bench times a GPU and torch sees none (device {device}); a step on a CPU takes hours")
    if args.steps < 1:
        raise InputError(f"steps={args.steps} is not at least 1")
    attend, dtype = choose(args.attention), dtype_of(args.dtype) or torch.bfloat16
    found = speed.measure(WAN_FLF2V_14B, grid, dtype, device, attend)
    used = getattr(attend, "used", {})
    kernels = sorted({kernel for problem, kernel in used.items() if problem[3] == problem[4] == grid.tokens})
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {args.dtype}, "
          f"attention {', '.join(kernels) or args.attention}")  # fmt: skip
    print(f"{args.width}x{args.height}, {counted(args.length, 'frame')}, {counted(grid.tokens, 'token')}")
    print(table(found, args.steps))
    for reason in reasons(found, kernels, torch.cuda.get_device_capability(device)):
        print(f"- {reason}")


def table(speed: Speed, steps: int) -> str:
    """Seconds and rates of a guided step, part by part."""
    blocks = speed.blocks
    whole = f"{counted(steps, 'step')} in {speed.step * steps / 60:.1f} min"
    rows = [
        ("a guided step", speed.step, f"{speed.rate / 1e12:.0f} TFLOP/s; {whole}"),
        ("  attention", speed.attention * blocks, f"{speed.attention_work / speed.attention / 1e12:.0f} TFLOP/s"),
        ("  products", speed.products * blocks, f"{speed.products_work / speed.products / 1e12:.0f} TFLOP/s"),
        ("  the rest", speed.rest * blocks, "norms, rotation, activation, sums"),
        ("it could be", speed.step * speed.share, f"at {speed.best / 1e12:.0f} TFLOP/s, one large product's rate"),
    ]
    return "\n".join(f"{name:14} {seconds:8.2f} s   {more}" for name, seconds, more in rows)


def reasons(speed: Speed, kernels: list[str], capability: tuple[int, int]) -> list[str]:
    """What keeps a step from what it could be, where there is something to do about it."""
    found = [f"this step reaches {speed.share:.0%} of one large product's rate"]
    rate = speed.attention_work / speed.attention
    if rate < SLOW_ATTENTION * speed.best:
        better = {8: "FlashAttention 2, or sage by name", 9: "FlashAttention 3, or a torch with cuDNN above 9.15"}
        advice = better.get(capability[0], "a newer torch, or sage by name")
        kernel = ", ".join(kernels) or "attention"
        found.append(f"{kernel} reaches {rate / speed.best:.0%} of it; {advice} may be faster")
    if speed.rest > LARGE_REST * speed.block:
        found.append(f"{speed.rest / speed.block:.0%} goes to what is neither product nor attention; try --compile")
    return found
