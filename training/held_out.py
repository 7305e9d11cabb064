"""How good the nano model is on clips it has never seen, beside a linear cross-fade of the same two frames.

Figures, all against the true clip that the caption describes:
    first, last     PSNR of the end frames against the input frames, dB
    middle          mean PSNR of the frames between, dB
    centroid        mean distance between the shape's centre of gravity and the true one, in pixels
The centre of gravity of a frame is that of its difference from the bare background. For a shape that goes straight
and steadily a cross-fade has the right centre by construction (two half ghosts), though no shape stands there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wan_local.generate import Pipeline

from .draw import draw_parts
from .grammar import Clip


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Figures of one clip; ``fade_`` ones are the cross-fade's."""

    caption: str
    first: float
    last: float
    middle: float
    fade_middle: float
    centroid: float
    fade_centroid: float

    @property
    def beats_fade(self) -> bool:
        return self.middle > self.fade_middle and self.centroid < self.fade_centroid


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A held-out clip three times, ``[F, S, S, 3]`` in 0..1, and its score."""

    score: Score
    truth: Tensor
    made: Tensor
    fade: Tensor


def evaluate(pipeline: Pipeline, clip: Clip, *, frames: int, size: int, seed: int, **settings: float) -> Result:
    """Generate ``clip`` from its end frames and caption and compare; ``settings`` go to the pipeline."""
    video, background = (part[0].permute(1, 2, 3, 0) * 0.5 + 0.5 for part in draw_parts([clip], frames, size))
    first, last = video[0].permute(2, 0, 1), video[-1].permute(2, 0, 1)  # [3, S, S]
    made = pipeline(
        first, last, clip.caption, width=size, height=size, length=frames, seed=seed, **settings
    )  # [F, S, S, 3]
    t = torch.linspace(0, 1, frames).view(-1, 1, 1, 1)
    fade = video[:1] * (1 - t) + video[-1:] * t
    score = Score(
        caption=clip.caption,
        first=psnr(made[0], video[0]),
        last=psnr(made[-1], video[-1]),
        middle=_middle(made, video),
        fade_middle=_middle(fade, video),
        centroid=_centroid_error(made, video, background),
        fade_centroid=_centroid_error(fade, video, background),
    )
    return Result(score=score, truth=video, made=made, fade=fade)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise ratio of values in 0..1, in dB, at most 100."""
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-10))


def centroid(frames: Tensor, background: Tensor) -> Tensor:
    """Centre of gravity ``[F, 2]`` (x, y in pixels) of what differs from ``background`` in ``[F, S, S, 3]``."""
    weight = ((frames - background).abs().sum(-1) - 0.15).clamp_min(0)  # the threshold drops coding noise
    axis = torch.arange(weight.shape[-1], dtype=weight.dtype)
    total = weight.sum((1, 2)).clamp_min(1e-6)
    return torch.stack(((weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total), dim=1)


def _middle(frames: Tensor, truth: Tensor) -> float:
    return sum(psnr(a, b) for a, b in zip(frames[1:-1], truth[1:-1], strict=True)) / (len(frames) - 2)


def _centroid_error(frames: Tensor, truth: Tensor, background: Tensor) -> float:
    places = centroid(frames[1:-1], background) - centroid(truth[1:-1], background)
    return places.norm(dim=1).mean().item()
