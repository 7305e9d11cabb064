"""``python -m training.report``: held-out figures of the nano model and its pair, and pictures of them.

Writes ``held_out.json`` (every clip's figures) and ``held_out.png`` (truth, result and cross-fade of some clips, row by
row) into ``training/``, with ``--pair`` of the two experts as ``held_out_pair.*``, and with ``--large`` of 33 frames of
128x128 as ``held_out_large.*``. With ``--demo`` the images and the prompt that ``make demo`` starts from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from wan_local.generate import Pipeline
from wan_local.parts import Parts

from .draw import draw_parts, random_clips
from .grammar import Clip
from .held_out import Result, Score, centroid, evaluate, keyframes, true_clip

ROOT = Path(__file__).resolve().parents[1]
SEED = 9_000_000  # far from every seed that training draws from
FRAMES, SIZE = 17, 64
LARGE = {"frames": 33, "size": 128}
SETTINGS = {"steps": 30, "shift": 16.0, "guidance": 2.0, "negative_prompt": ""}
PAIR_SHIFT = 5.0
DEMO_CLIP = 14  # which held-out clip the demo shows
SHOWN_CLIPS, SHOWN_FRAMES, ZOOM = 8, 9, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", help="where nano/ and nano_pair/ are")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--pair", action="store_true", help="the two experts in the place of the transformer")
    parser.add_argument("--large", action="store_true", help="33 frames of 128x128")
    parser.add_argument("--keyframes", type=int, default=8, help="clips that are made with their middle frame too")
    parser.add_argument("--demo", action="store_true", help="write demo/nano_* and stop")
    args = parser.parse_args()
    clips = random_clips(SEED, args.clips)
    if args.demo:
        return write_demo(clips[DEMO_CLIP])
    pipeline, settings = (
        pair(args.weights) if args.pair else (Pipeline.from_pretrained(args.weights / "nano"), SETTINGS)
    )
    shape = LARGE if args.large else {"frames": FRAMES, "size": SIZE}
    results = []
    for index, clip in enumerate(clips):
        results.append(evaluate(pipeline, clip, **shape, seed=index, **settings))
        print(line(results[-1].score), flush=True)
    scores = [result.score for result in results]
    figures = summary(scores)
    figures["prompt_distance_pixels"] = prompt_distance(pipeline, settings, **shape)
    given = [keyframes(pipeline, clip, **shape, seed=0, **settings) for clip in clips[: args.keyframes]]
    for name, column in zip(("mean_keyframe", "mean_ends_beside_keyframe"), zip(*given, strict=True), strict=False):
        figures[name] = round(sum(column) / len(column), 3)
    print(json.dumps(figures, indent=2))
    report = {"figures": figures, "settings": settings, **shape, "clips": [asdict(score) for score in scores]}
    stem = "held_out" + "_pair" * args.pair + "_large" * args.large
    (ROOT / "training" / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    sheet(results[:SHOWN_CLIPS]).save(ROOT / "training" / f"{stem}.png")


def whole(folder: Path) -> tuple[Pipeline, dict[str, Any]]:
    """The nano model and its settings."""
    return Pipeline.from_pretrained(folder / "nano"), SETTINGS


def pair(folder: Path) -> tuple[Pipeline, dict[str, Any]]:
    """The two experts with the VAE and the text encoder of the whole model, and their settings."""
    nano, experts = folder / "nano", [folder / "nano_pair" / f"{level}_noise.safetensors" for level in ("high", "low")]
    parts = Parts(vae=nano, text_encoder=nano)
    return Pipeline.from_pretrained(experts[0], low=experts[1], parts=parts), SETTINGS | {"shift": PAIR_SHIFT}


def line(score: Score) -> str:
    """One clip's figures for a person."""
    return (
        f"first {score.first:5.2f} last {score.last:5.2f} middle {score.middle:5.2f} (fade {score.fade_middle:5.2f}) "
        f"centroid {score.centroid:5.2f} px (fade {score.fade_centroid:5.2f}) jump {score.jump:4.1f} "
        f"outside {score.outside:4.2f}  {score.caption}"
    )


def summary(scores: list[Score]) -> dict[str, float]:
    """Means over the clips, and shares of clips that clear each bar."""

    def mean(name: str) -> float:
        return round(sum(getattr(score, name) for score in scores) / len(scores), 3)

    def share(passed: list[bool]) -> float:
        return round(sum(passed) / len(scores), 3)

    names = ("first", "last", "middle", "fade_middle", "centroid", "fade_centroid", "outside")
    squares = [score.outside for score in scores if " square " in score.caption]
    return {
        "clips": len(scores),
        **{f"mean_{name}": mean(name) for name in names},
        "mean_outside_of_squares": round(sum(squares) / max(1, len(squares)), 3),
        "median_jump": round(median(score.jump for score in scores), 3),
        "median_true_jump": round(median(score.true_jump for score in scores), 3),
        "share_first_30dB": share([score.first >= 30 for score in scores]),
        "share_last_28dB": share([score.last >= 28 for score in scores]),
        "share_both_ends_24dB": share([min(score.first, score.last) >= 24 for score in scores]),
        "share_middle_beats_fade": share([score.middle > score.fade_middle for score in scores]),
        "share_centroid_beats_fade": share([score.centroid < score.fade_centroid for score in scores]),
        "share_beats_fade_in_both": share([score.beats_fade for score in scores]),
    }


def prompt_distance(
    pipeline: Pipeline, settings: dict[str, Any] | None = None, frames: int = FRAMES, size: int = SIZE
) -> float:
    """Largest distance in pixels between the paths that two opposite prompts give the same two frames."""
    clip = Clip(
        shape="circle", colour="red", end_colour="red", start=(0.25, 0.5), end=(0.75, 0.5), radius=0.17,
        end_radius=0.17, angle=0.0, turn=0.0, path="over the top", pace="steadily", background_seed=SEED,
    )  # fmt: skip
    video, background = true_clip(clip, frames, size)
    first, last = video[0].permute(2, 0, 1), video[-1].permute(2, 0, 1)
    places = []
    for path in (clip.path, "under the bottom"):
        prompt = clip.caption.replace(clip.path, path)
        made = pipeline(first, last, prompt, width=size, height=size, length=frames, seed=0, **(settings or SETTINGS))
        places.append(centroid(made, background))
    return round((places[0] - places[1]).norm(dim=1).max().item(), 2)


def sheet(results: list[Result]) -> Image.Image:
    """Truth, result and cross-fade of every clip below each other, some frames of each."""
    picked = torch.linspace(0, len(results[0].truth) - 1, SHOWN_FRAMES).round().long()
    rows = [torch.cat(list(frames[picked]), dim=1) for r in results for frames in (r.truth, r.made, r.fade)]
    return to_image(torch.cat(rows), ZOOM if results[0].truth.shape[1] <= SIZE else 1)


def write_demo(clip: Clip) -> None:
    video, _ = draw_parts([clip], *LARGE.values())
    for name, index in (("first", 0), ("middle", LARGE["frames"] // 2), ("last", -1)):
        to_image(video[0, :, index].permute(1, 2, 0) * 0.5 + 0.5, 1).save(ROOT / "demo" / f"nano_{name}.png")
    (ROOT / "demo" / "nano_prompt.txt").write_text(clip.caption + "\n")


def to_image(pixels: Tensor, zoom: int) -> Image.Image:
    """``[H, W, 3]`` 0..1 to an image, each pixel ``zoom`` wide."""
    image = Image.fromarray((pixels * 255).round().clamp(0, 255).byte().numpy())
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
