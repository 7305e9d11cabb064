"""How good the nano model is on clips it has never seen, beside a linear cross-fade of the same two frames.

Figures, all against the true clip that the caption describes:
    first, last     PSNR of the end frames against the input frames, dB
    middle          mean PSNR of the frames between, dB
    centroid        mean distance between the shape's centre of gravity and the true one, in pixels
    jump            largest change from one frame to the next over the median one
    outside         mean area of the shape outside the true one, laid centre on centre, over the area of that
    keyframe        PSNR of the frame in the middle where it is given too, dB
The centre of gravity of a frame is that of its difference from the bare background. For a shape that goes straight
and steadily a cross-fade has the right centre by construction (two half ghosts), though no shape stands there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wan_local.generate import Pipeline
from wan_local.keyframes import Keyframe
from wan_local.shapes import TEMPORAL_STRIDE

from .draw import draw_parts
from .grammar import Clip

VISIBLE = 0.3  # sum over the colours from which on a pixel is the shape's


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Figures of one clip; ``fade_`` ones are the cross-fade's, ``true_`` ones the true clip's."""

    caption: str
    first: float
    last: float
    middle: float
    fade_middle: float
    centroid: float
    fade_centroid: float
    jump: float
    true_jump: float
    outside: float

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
    video, background = true_clip(clip, frames, size)
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
        jump=jump(made),
        true_jump=jump(video),
        outside=outside(made, video, background),
    )
    return Result(score=score, truth=video, made=made, fade=fade)


def true_clip(clip: Clip, frames: int, size: int) -> tuple[Tensor, Tensor]:
    """The clip ``[F, S, S, 3]`` and its bare background ``[1, S, S, 3]`` in 0..1."""
    video, background = (part[0].permute(1, 2, 3, 0) * 0.5 + 0.5 for part in draw_parts([clip], frames, size))
    return video, background


def keyframes(
    pipeline: Pipeline, clip: Clip, *, frames: int, size: int, seed: int, **settings: float
) -> tuple[float, float]:
    """PSNR in dB of the frame in the middle and, mean, of the ends, where all three are given."""
    middle = frames // 2 // TEMPORAL_STRIDE * TEMPORAL_STRIDE
    video, _ = true_clip(clip, frames, size)
    images = video.permute(0, 3, 1, 2)  # [F, 3, S, S]
    given = [Keyframe(images=images[middle : middle + 1], frame=middle)]
    made = pipeline(
        images[0], images[-1], clip.caption, keyframes=given, width=size, height=size, length=frames, seed=seed,
        **settings,
    )  # fmt: skip
    first, between, last = (psnr(made[frame], video[frame]) for frame in (0, middle, -1))
    return between, (first + last) / 2


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise ratio of values in 0..1, in dB, at most 100."""
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-10))


def jump(frames: Tensor) -> float:
    """Largest mean change from one frame to the next over the median one, of ``[F, S, S, 3]``."""
    changes = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    return (changes.max() / changes.median().clamp_min(1e-6)).item()


def centroid(frames: Tensor, background: Tensor) -> Tensor:
    """Centre of gravity ``[F, 2]`` (x, y in pixels) of what differs from ``background`` in ``[F, S, S, 3]``."""
    weight = ((frames - background).abs().sum(-1) - 0.15).clamp_min(0)  # the threshold drops coding noise
    axis = torch.arange(weight.shape[-1], dtype=weight.dtype)
    total = weight.sum((1, 2)).clamp_min(1e-6)
    return torch.stack(((weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total), dim=1)


def outside(frames: Tensor, truth: Tensor, background: Tensor) -> float:
    """Mean area outside the true shape over its own area, of the frames between the ends.

    The true shape is first moved onto the centre of the one that was made: this is about corners, not about places.
    """
    offsets = (centroid(frames, background) - centroid(truth, background)).round().long()
    shown, real = (((each - background).abs().sum(-1) > VISIBLE) for each in (frames, truth))  # [F, S, S]
    areas = []
    for index in range(1, len(frames) - 1):
        x, y = offsets[index].tolist()
        moved = real[index].roll((y, x), (0, 1))
        areas.append(((shown[index] & ~moved).sum() / moved.sum().clamp_min(1)).item())
    return sum(areas) / len(areas)


def _middle(frames: Tensor, truth: Tensor) -> float:
    return sum(psnr(a, b) for a, b in zip(frames[1:-1], truth[1:-1], strict=True)) / (len(frames) - 2)


def _centroid_error(frames: Tensor, truth: Tensor, background: Tensor) -> float:
    places = centroid(frames[1:-1], background) - centroid(truth[1:-1], background)
    return places.norm(dim=1).mean().item()
