"""``python -m training.report``: held-out figures of ``weights/nano``, and pictures of them.

Writes ``training/held_out.json`` (every clip's figures) and ``training/held_out.png`` (truth, result and cross-fade of
some clips, row by row), and with ``--demo`` the pictures and the prompt that ``make demo`` starts from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wan_local.generate import Pipeline

from .draw import draw_parts, random_clips
from .grammar import Clip
from .held_out import Result, Score, centroid, evaluate

ROOT = Path(__file__).resolve().parents[1]
SEED = 9_000_000  # far from every seed that training draws from
FRAMES, SIZE = 17, 64
SETTINGS = {"steps": 30, "shift": 16.0, "guidance": 2.0, "negative_prompt": ""}
DEMO_CLIP = 18  # which held-out clip the demo shows
SHOWN_CLIPS, SHOWN_FRAMES, ZOOM = 8, 9, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "nano")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--demo", action="store_true", help="write demo/nano_* and stop")
    args = parser.parse_args()
    clips = random_clips(SEED, args.clips)
    if args.demo:
        return write_demo(clips[DEMO_CLIP])
    pipeline = Pipeline.from_pretrained(args.model)
    results = []
    for index, clip in enumerate(clips):
        results.append(evaluate(pipeline, clip, frames=FRAMES, size=SIZE, seed=index, **SETTINGS))
        print(line(results[-1].score), flush=True)
    scores = [result.score for result in results]
    figures = summary(scores)
    figures["prompt_distance_pixels"] = prompt_distance(pipeline)
    print(json.dumps(figures, indent=2))
    report = {"figures": figures, "settings": SETTINGS, "clips": [asdict(score) for score in scores]}
    (ROOT / "training" / "held_out.json").write_text(json.dumps(report, indent=1) + "\n")
    sheet(results[:SHOWN_CLIPS]).save(ROOT / "training" / "held_out.png")


def line(score: Score) -> str:
    """One clip's figures for a person."""
    return (
        f"first {score.first:5.2f} last {score.last:5.2f} middle {score.middle:5.2f} (fade {score.fade_middle:5.2f}) "
        f"centroid {score.centroid:5.2f} px (fade {score.fade_centroid:5.2f})  {score.caption}"
    )


def summary(scores: list[Score]) -> dict[str, float]:
    """Means over the clips, and shares of clips that clear each bar."""

    def mean(name: str) -> float:
        return round(sum(getattr(score, name) for score in scores) / len(scores), 3)

    def share(passed: list[bool]) -> float:
        return round(sum(passed) / len(scores), 3)

    names = ("first", "last", "middle", "fade_middle", "centroid", "fade_centroid")
    return {
        "clips": len(scores),
        **{f"mean_{name}": mean(name) for name in names},
        "share_both_ends_24dB": share([min(score.first, score.last) >= 24 for score in scores]),
        "share_middle_beats_fade": share([score.middle > score.fade_middle for score in scores]),
        "share_centroid_beats_fade": share([score.centroid < score.fade_centroid for score in scores]),
        "share_beats_fade_in_both": share([score.beats_fade for score in scores]),
    }


def prompt_distance(pipeline: Pipeline) -> float:
    """Largest distance in pixels between the paths that two opposite prompts give the same two frames."""
    clip = Clip(
        shape="circle", colour="red", end_colour="red", start=(0.25, 0.5), end=(0.75, 0.5), radius=0.17,
        end_radius=0.17, angle=0.0, turn=0.0, path="over the top", pace="steadily", background_seed=SEED,
    )  # fmt: skip
    video, background = (part[0].permute(1, 2, 3, 0) * 0.5 + 0.5 for part in draw_parts([clip], FRAMES, SIZE))
    first, last = video[0].permute(2, 0, 1), video[-1].permute(2, 0, 1)
    places = []
    for path in (clip.path, "under the bottom"):
        prompt = clip.caption.replace(clip.path, path)
        frames = pipeline(first, last, prompt, width=SIZE, height=SIZE, length=FRAMES, seed=0, **SETTINGS)
        places.append(centroid(frames, background))
    return round((places[0] - places[1]).norm(dim=1).max().item(), 2)


def sheet(results: list[Result]) -> Image.Image:
    """Truth, result and cross-fade of every clip below each other, some frames of each."""
    picked = torch.linspace(0, FRAMES - 1, SHOWN_FRAMES).round().long()
    rows = [torch.cat(list(frames[picked]), dim=1) for r in results for frames in (r.truth, r.made, r.fade)]
    return to_image(torch.cat(rows), ZOOM)


def write_demo(clip: Clip) -> None:
    video, _ = draw_parts([clip], FRAMES, SIZE)
    for name, index in (("first", 0), ("last", -1)):
        to_image(video[0, :, index].permute(1, 2, 0) * 0.5 + 0.5, 1).save(ROOT / "demo" / f"nano_{name}.png")
    (ROOT / "demo" / "nano_prompt.txt").write_text(clip.caption + "\n")


def to_image(pixels: Tensor, zoom: int) -> Image.Image:
    """``[H, W, 3]`` 0..1 to a picture, each pixel ``zoom`` wide."""
    image = Image.fromarray((pixels * 255).round().clamp(0, 255).byte().numpy())
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
