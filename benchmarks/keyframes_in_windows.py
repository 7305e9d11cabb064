"""Do keyframes hold in a long clip that is made in windows? ``python -m benchmarks.keyframes_in_windows``.

Held-out clips of the bundled model, longer than those it was trained on, with images at their ends and in the middle:
in dB how near each given frame comes to its image, for every way of making a longer clip, and beside the keyframes how
near the same frame comes without them. With the settings of ``docs/decisions/0025-longer-clips.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from training.draw import random_clips
from training.held_out import true_clip
from training.report import SEED, SETTINGS, SIZE
from wan_local.ends.measure import psnr
from wan_local.generate import Pipeline
from wan_local.keyframes import Keyframe
from wan_local.longer import WAYS, WINDOWS, Longer

ROOT = Path(__file__).resolve().parents[1]
STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keyframes_in_windows", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--length", type=int, help="frames (default: twice those of training, less one)")
    parser.add_argument("--keyframes", type=int, nargs="+", help="frames between the ends (default: the middle)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(ROOT / "weights" / "nano", device="cpu")
    length = args.length or 2 * trained(pipeline) - 1
    middle = args.keyframes or [length // 2]
    found = {way: [figures(pipeline, index, length, middle, way) for index in range(args.clips)] for way in WAYS}
    print(f"{length} frames of {SIZE}x{SIZE}, windows of {trained(pipeline)}\n")
    print("\n".join(table(found, middle)))


def trained(pipeline: Pipeline) -> int:
    """Frames of the longest clips of training: a window is as long, and shares half of it with the next."""
    return pipeline.transformer.config.trained_frames


def figures(pipeline: Pipeline, index: int, length: int, middle: Sequence[int], way: str) -> dict[str, float]:
    """PSNR of each given frame of one clip against its image, and of those in the middle where they are not given."""
    clip = random_clips(SEED, index + 1)[index]
    images = true_clip(clip, length, SIZE)[0].permute(0, 3, 1, 2)  # [F, 3, S, S]
    window = trained(pipeline)
    longer = Longer(way=way, window=window, overlap=window // 2) if way == WINDOWS else Longer(way=way)

    def made(frames: Sequence[int]) -> Tensor:
        given = [Keyframe(images=images[frame : frame + 1], frame=frame) for frame in frames]
        shown = pipeline(
            images[0], images[-1], clip.caption, keyframes=given, width=SIZE, height=SIZE, length=length, seed=index,
            steps=STEPS, guidance=float(SETTINGS["guidance"]), negative_prompt="", longer=longer,
        )  # fmt: skip
        return shown.permute(0, 3, 1, 2)

    whole, without = made(middle), made([])
    found = {f"frame {frame}": psnr(whole[frame], images[frame]) for frame in (0, *middle, length - 1)}
    return found | {f"frame {frame}, not given": psnr(without[frame], images[frame]) for frame in middle}


def table(found: dict[str, list[dict[str, float]]], middle: Sequence[int]) -> Iterator[str]:
    """Means over the clips, as Markdown, and the worst of the keyframes in the middle."""
    yield f"| PSNR in dB, mean of {len(next(iter(found.values())))} clips | {' | '.join(found)} |"
    yield "|---" * (len(found) + 1) + "|"
    for name in next(iter(found.values()))[0]:
        yield (
            f"| {name} | " + " | ".join(f"{mean(each[name] for each in clips):.1f}" for clips in found.values()) + " |"
        )
    worst = (min(each[f"frame {frame}"] for each in clips for frame in middle) for clips in found.values())
    yield "| worst keyframe between | " + " | ".join(f"{value:.1f}" for value in worst) + " |"


if __name__ == "__main__":
    main()
