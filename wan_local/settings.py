"""What a person may choose for one run, checked before anything long starts. Plain Python."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError
from .images import Fit, check_fit
from .shapes import Grid, check_frames, check_side, nearest_size

# The official defaults (Wan-Video/Wan2.1 wan/first_last_frame2video.py).
LENGTH, STEPS, GUIDANCE, SHIFT, SAMPLER = 81, 50, 5.5, 16.0, "unipc"
MAX_AREA = 1280 * 720  # what the released model was trained for

MAX_STEPS = 1000  # the noise levels of training
MAX_GUIDANCE, MAX_SHIFT = 100.0, 1000.0
MAX_SEED = 2**64 - 1  # what a torch generator takes
RANDOM_SEED = -1
DRAWN_SEEDS = 2**32  # few enough digits to be copied by hand


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The choices of one run; every value is checked when it is made.

    Attributes:
        negative_prompt: what to keep away from; None is the official text.
        width: pixels, a multiple of 16; None follows the first picture.
        height: pixels, a multiple of 16; None follows the first picture.
        length: frames, 4n+1 and at least 5.
        seed: of the noise (drawn on the CPU, so it gives the same clip on every machine of one kind); -1 draws one.
        steps: sampling steps.
        guidance: strength of the prompt; 1 switches the negative prompt off and takes half the time.
        shift: how much of the schedule is spent at high noise; 16 for 720p, about 3 to 5 for 480p.
        sampler: "unipc", "dpm++" or "euler".
        fit: what to do with pictures of another aspect: "crop", "pad" or "stretch".

    Raises:
        InputError: a value that can't be used, with what can.
    """

    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    length: int = LENGTH
    seed: int = RANDOM_SEED
    steps: int = STEPS
    guidance: float = GUIDANCE
    shift: float = SHIFT
    sampler: str = SAMPLER
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        from .conditioning import check_room
        from .sampling import SAMPLERS

        if self.negative_prompt is not None:
            check_text("negative_prompt", self.negative_prompt)
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                check_side(name, getattr(self, name))
        check_room(check_frames(self.length))
        _check_whole("seed", self.seed, RANDOM_SEED, MAX_SEED)
        _check_whole("steps", self.steps, 1, MAX_STEPS)
        _check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        _check_number("shift", self.shift, 0.0, MAX_SHIFT, above=True)
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler={self.sampler!r} is not known; use {', '.join(SAMPLERS)}")
        check_fit(self.fit)

    def with_seed(self) -> Settings:
        """These settings with a seed drawn where it is -1."""
        return replace(self, seed=secrets.randbelow(DRAWN_SEEDS)) if self.seed == RANDOM_SEED else self

    def grid(self, image_width: int, image_height: int) -> Grid:
        """The size of the clip for a first picture of this size.

        Without a size the clip takes the aspect and the area of the picture, at most 1280 x 720 pixels in all; with
        one side given, the other follows the aspect. Both are floored to multiples of 16.
        """
        aspect = image_width / image_height
        if self.width and self.height:
            width, height = self.width, self.height
        elif self.width:
            width, height = self.width, nearest_size(self.width, self.width / aspect)[1]
        elif self.height:
            width, height = nearest_size(self.height * aspect, self.height)[0], self.height
        else:
            area = min(MAX_AREA, image_width * image_height)
            width, height = nearest_size(math.sqrt(area * aspect), math.sqrt(area / aspect))
        return Grid(frames=self.length, height=height, width=width)


def check_text(name: str, text: Any) -> str:
    """Return ``text`` if it is a string, else raise :class:`InputError`."""
    if not isinstance(text, str):
        raise InputError(f"{name} is {type(text).__name__} {text!r}; give one text")
    return text


def official_negative_prompt() -> str:
    """The negative prompt of the released model: the shared text with the two additions for first-last-frame."""
    return (Path(__file__).parent / "prompts" / "negative.txt").read_text(encoding="utf-8").strip()


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}={value!r} can't be used; give a whole number from {low} to {high}")


def _check_number(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not low <= value <= high or (above and value == low):
        lowest = "above" if above else "from"
        raise InputError(f"{name}={value!r} can't be used; give a number {lowest} {low:g} to {high:g}")
