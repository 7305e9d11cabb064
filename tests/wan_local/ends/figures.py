"""``python -m tests.wan_local.ends.figures [KIND ...]``: the table of ``docs/ends.md``, and the curve over reach."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from tests.wan_local.ends import clips
from tests.wan_local.ends.clips import Case
from wan_local import ends
from wan_local.ends.report import changes_of
from wan_local.settings import REACH

NANO_CLIPS = 16
REACHES = (4, 8, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What a repair did to one clip of known truth.

    Attributes:
        whole: dB over all frames, in one mean.
        inner: the same without the first and the last.
        worst: of the inner frame that gained least.
        jump: the largest change over the median, after over before.
    """

    whole: float
    inner: float
    worst: float
    jump: float


def repaired(case: Case, how: ends.Repair = "exact", reach: int = REACH, remove_flash: bool = False) -> ends.Repaired:
    images = {0: case.first, len(case.decoded) - 1: case.last}
    return ends.repair(case.decoded, images, how, reach=reach, remove_flash=remove_flash)


def gain(case: Case, done: ends.Repaired) -> Gain:
    before, after, truth = case.decoded, done.frames, case.truth
    by_frame = clips.by_frame(after, truth) - clips.by_frame(before, truth)
    return Gain(
        whole=clips.psnr(after, truth) - clips.psnr(before, truth),
        inner=clips.psnr(after[1:-1], truth[1:-1]) - clips.psnr(before[1:-1], truth[1:-1]),
        worst=by_frame[1:-1].min().item(),
        jump=jump(after) / jump(before),
    )


def jump(frames: torch.Tensor) -> float:
    changes = changes_of(frames)
    return (changes.max() / changes.median()).item()


def nano(count: int = NANO_CLIPS, steps: int = 30) -> list[Case]:
    """Held-out clips of the bundled model."""
    from training.held_out import evaluate
    from training.report import FRAMES, ROOT, SEED, SETTINGS, SIZE, random_clips
    from wan_local.generate import Pipeline

    pipeline = Pipeline.from_pretrained(ROOT / "weights" / "nano", device="cpu")
    made = []
    for seed, clip in enumerate(random_clips(SEED, count)):
        result = evaluate(pipeline, clip, frames=FRAMES, size=SIZE, seed=seed, **{**SETTINGS, "steps": steps})
        first, last = (result.truth[at].permute(2, 0, 1) for at in (0, -1))
        made.append(
            Case(kind="nano", scene=clip.caption, truth=result.truth, decoded=result.made, first=first, last=last)
        )
    return made


KINDS: dict[str, Callable[[], list[Case]]] = {
    "nano": nano, "clean": clips.clean, "drift": clips.drift, "misplaced": clips.misplaced,
    "lightning": clips.lightning, "flash": clips.flash,
}  # fmt: skip


def lines(kinds: Iterable[str]) -> Iterator[str]:
    yield "| clips | repair | all, mean | all, worst | inner, mean | inner frame, worst | jump, mean | jump, worst |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind in kinds:
        cases = KINDS[kind]()
        for name in dict.fromkeys(case.kind for case in cases):
            own = [case for case in cases if case.kind == name]
            yield _row(name, "colour", [gain(case, repaired(case, "colour")) for case in own])
            for reach in REACHES if kind in ("nano", "clean") else (REACH,):
                yield _row(name, f"exact, reach {reach}", [gain(case, repaired(case, reach=reach)) for case in own])
            if kind in ("lightning", "flash"):
                found = [gain(case, repaired(case, remove_flash=True)) for case in own]
                yield _row(name, "exact, remove_flash", found)


def _row(kind: str, repair: str, gains: list[Gain]) -> str:
    whole, inner, worst, jumps = (
        [getattr(each, name) for each in gains] for name in ("whole", "inner", "worst", "jump")
    )
    return (
        f"| {len(gains)} {kind} | {repair} | {mean(whole):+.2f} | {min(whole):+.2f} | {mean(inner):+.2f} | "
        f"{min(worst):+.2f} | {mean(jumps):.2f} | {max(jumps):.2f} |"
    )


if __name__ == "__main__":
    for line in lines(sys.argv[1:] or KINDS):
        print(line, flush=True)
