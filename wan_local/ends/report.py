"""How exact a clip is where images were given, and how evenly it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..images import fit_image
from ..settings import FIT, Fit
from .measure import Match, match


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How well the frames match the images that were given for them, and how smooth the clip is.

    Attributes:
        length: frames of the clip.
        matches: frame, from 0, to how well it matches its image.
        steps: of the same frames, the larger of the changes to both neighbours over the median change of the clip.
        jitter: standard deviation of the change from frame to frame over its mean; the change is the mean absolute
            difference of two frames. 0 is perfectly even (or a still), 1 is as uneven as it is fast.
        jump: the largest change over the median change; far above 1 is a cut or a flash.
        jump_at: the frame that the largest change leads to; 0 in a clip of one frame.
    """

    length: int
    matches: Mapping[int, Match]
    steps: Mapping[int, float]
    jitter: float
    jump: float
    jump_at: int

    @property
    def first(self) -> Match | None:
        """Frame 0 against its image, if that was given."""
        return self.matches.get(0)

    @property
    def last(self) -> Match | None:
        return self.matches.get(self.length - 1)

    def name(self, frame: int) -> str:
        """What people call a frame: "first", "last" or "frame 40"."""
        return {0: "first", self.length - 1: "last"}.get(frame, f"frame {frame}")

    def __str__(self) -> str:
        given = "; ".join(f"{self.name(frame)} {found}" for frame, found in self.matches.items())
        even = f"jitter {self.jitter:.2f}, largest jump x{self.jump:.1f} at frame {self.jump_at}"
        return f"ends: {given}; {even}" if given else even

    def as_json(self) -> dict[str, Any]:
        """For ``json.dumps``. Where JSON has no number, an infinite PSNR or jump, there is None."""
        return {
            "frames": self.length,
            "given": [
                {
                    "frame": frame,
                    "psnr_db": _finite(found.psnr),
                    "ssim": round(found.ssim, 5),
                    "match_percent": round(100 * found.ssim, 1),
                    "delta_e76": round(found.colour, 3),
                    "change_beside_over_median": _finite(self.steps[frame]),
                }
                for frame, found in self.matches.items()
            ],
            "jitter": round(self.jitter, 4),
            "largest_jump": _finite(self.jump),
            "largest_jump_at": self.jump_at,
        }


def report(frames: Tensor, images: Mapping[int, Tensor], fit: Fit = FIT) -> Report:
    """Compare frames of a clip with the images that were given for them.

    Args:
        frames: ``[F, H, W, 3]`` 0..1, at least one.
        images: frame, from 0, to its image ``[3, H0, W0]`` 0..1; one of another size is fitted as the pipeline does it.
        fit: as given to the pipeline.

    Raises:
        InputError: frames of another shape, or an image for a frame that is not there.
    """
    wanted = check(frames, images, fit)
    changes = changes_of(frames)
    median = changes.median().item() if len(changes) else 0.0
    mean = changes.mean().item() if len(changes) else 0.0

    def over_median(change: float) -> float:
        return change / median if median > 0 else (1.0 if change == 0 else math.inf)

    largest = int(changes.argmax()) if len(changes) else -1
    beside = {at: changes[max(0, at - 1) : at + 1] for at in wanted}
    return Report(
        length=len(frames),
        matches={at: match(frames[at].permute(2, 0, 1), image) for at, image in wanted.items()},
        steps={at: over_median(near.max().item() if len(near) else 0.0) for at, near in beside.items()},
        jitter=changes.std(correction=0).item() / mean if mean > 0 else 0.0,
        jump=over_median(changes[largest].item() if len(changes) else 0.0),
        jump_at=largest + 1,
    )


def check(frames: Tensor, images: Mapping[int, Tensor], fit: Fit) -> dict[int, Tensor]:
    """The images ``[3, H, W]`` 0..1 at the size of the clip, in the order of their frames; errors as :func:`report`."""
    if frames.ndim != 4 or 0 in frames.shape or frames.shape[3] != 3:
        raise InputError(f"frames have shape {list(frames.shape)}; give [F, H, W, 3] with at least one frame")
    length, height, width = frames.shape[:3]
    for at in images:
        if not 0 <= at < length:
            raise InputError(f"an image is given for frame {at} and the clip has {length}; use 0 to {length - 1}")
    return {at: fit_image(images[at], width, height, fit).clamp(0.0, 1.0) for at in sorted(images)}


def changes_of(frames: Tensor) -> Tensor:
    """Mean absolute difference of each frame to the one before, ``[F - 1]`` float64; two frames held at a time."""
    pairs = zip(frames[:-1], frames[1:], strict=True)
    return torch.tensor([(b.float() - a.float()).abs().mean().item() for a, b in pairs], dtype=torch.float64)


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
