"""``make demo``: a clip between two images with the bundled model, on any CPU.

``python -m demo`` in the folder of the pack does the same where everything is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wan_local import cli, images
from wan_local.errors import WanError

from . import gif

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "weights" / "nano"
FIRST, LAST, PROMPT = HERE / "nano_first.png", HERE / "nano_last.png", HERE / "nano_prompt.txt"
SIDE, LENGTH = 128, 33  # what the bundled model was trained on
STEPS = 30
OUTPUT = Path("output")
BEFORE = """\
WanFLF2V makes a video that starts at one image and ends at another.
This is the bundled nano model, {side}x{side}: it knows drawn shapes on soft backgrounds, nothing else.
It makes {length} frames from {first} and {last}; about half a minute on two cores.
"""
AFTER = """
{folder}/demo.mp4  the clip; the line "ends" says how well its first and last frame match the images
{folder}/demo.gif  the same between its two images, enlarged; {folder}/demo.png  all frames at a glance

What to do next
  your own images   make demo FIRST=a.png LAST=b.png PROMPT="a red circle moves to the right"
  in ComfyUI        README.md, "In ComfyUI": the template "Wan FLF2V nano model" makes a clip of the same images
  the real model    README.md, "Which file and which setting": photographs, up to 1280x720
"""


def main(argv: list[str] | None = None) -> int:
    """Make the clip; return the exit status of the command that made it."""
    args = _parser().parse_args(argv)
    if bool(args.first) != bool(args.last):
        print("make demo: FIRST and LAST go together; give both images, or neither", file=sys.stderr)
        return 2
    own = bool(args.first)
    first, last = (Path(args.first), Path(args.last)) if own else (FIRST, LAST)
    for name, path in (("FIRST", first), ("LAST", last)):
        try:
            images.read(path)
        except WanError as error:
            print(f"make demo: {name}: {error}", file=sys.stderr)
            return cli.FAILED
    prompt = args.prompt if args.prompt or own else PROMPT.read_text("utf-8").strip()
    print(BEFORE.format(side=SIDE, length=LENGTH, first=first.name, last=last.name), flush=True)

    OUTPUT.mkdir(exist_ok=True)
    video = OUTPUT / "demo.mp4"
    status = cli.main([
        "generate", "--model", str(MODEL), f"--first={first}", f"--last={last}", f"--prompt={prompt}", "--negative=",
        "--width", str(SIDE), "--height", str(SIDE), "--length", str(LENGTH), "--steps", str(args.steps),
        "--guidance", "2", "--seed", "1", "--output", str(video), "--sheet", str(OUTPUT / "demo.png"),
    ])  # fmt: skip
    if status == cli.DONE:
        gif.write(video, first, last, OUTPUT / "demo.gif")
        print(AFTER.format(folder=OUTPUT))
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--first", default="", metavar="IMAGE", help="instead of the bundled first image")
    parser.add_argument("--last", default="", metavar="IMAGE", help="instead of the bundled last image")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what happens in between")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
