"""A clip on this machine, without ComfyUI.

    python docs/api/local_pipeline.py weights/nano demo/nano_first.png demo/nano_last.png "a circle moves" clip.mp4

Needs what ``requirements.txt`` lists.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the pack is a folder, not an installed package

from wan_local import ends, images, video  # noqa: E402
from wan_local.errors import WanError  # noqa: E402
from wan_local.generate import Pipeline  # noqa: E402


def main(args: argparse.Namespace) -> None:
    pipeline = Pipeline.from_pretrained(args.model)  # device, dtype and offloading are chosen for the machine
    frames = pipeline(
        args.first,
        args.last,
        args.prompt,
        width=args.width,
        height=args.height,
        length=args.length,  # frames, 4n+1
        steps=args.steps,
        seed=1,
        on_progress=lambda progress: print(progress.stage, progress.done, progress.total, file=sys.stderr),
    )  # [F, H, W, 3], 0..1, on the CPU
    given = {0: images.read(args.first), len(frames) - 1: images.read(args.last)}  # frame: [3, H0, W0]
    print(ends.report(frames, given))
    repaired = ends.repair(frames, given, "exact")  # leave this out to keep what the model made
    video.write(repaired.frames, args.output, fps=16)
    print(args.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "first", "last", "prompt", "output"):
        parser.add_argument(name)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--length", type=int, default=17)
    parser.add_argument("--steps", type=int, default=20)
    try:
        main(parser.parse_args())
    except WanError as error:  # one line: what was wrong, which value, what to do
        sys.exit(str(error))
