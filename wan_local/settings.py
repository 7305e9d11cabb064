"""What a person may choose for one run, checked before anything long starts. Plain Python."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from .approximations import EXACT, Approximations
from .checks import check_number, check_whole
from .config import TransformerConfig
from .errors import InputError
from .longer import Longer
from .shapes import Grid, check_ends, check_frames, check_side, nearest_size

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[str, ...] = get_args(Fit)

Repair = Literal["report", "colour", "exact"]
REPAIRS: tuple[str, ...] = get_args(Repair)
REPORT: Repair = "report"
REACH, MAX_REACH = 8, 64  # frames over which the detail of an exact end fades

LENGTH, SAMPLER = 81, "unipc"
FPS = 16.0
FIT: Fit = "crop"
STILL, MOST_MOTION = 1.0, 2.0  # no amplification, and the most that was published
AS_ANY_CLIP = Longer()
MAX_AREA = 1280 * 720  # what the released model was trained for

MAX_STEPS = 1000  # the noise levels of training
MAX_GUIDANCE, MAX_SHIFT = 100.0, 1000.0
MAX_SEED = 2**64 - 1  # what a torch generator takes
RANDOM_SEED = -1
DRAWN_SEEDS = 2**32  # few enough digits to be copied by hand


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The values that a model was published with.

    Attributes:
        model: what people call it.
        steps, guidance, shift: as in :class:`Settings`.
        negative_prompt: name of the file in ``prompts/``.
    """

    model: str
    steps: int
    guidance: float
    shift: float
    negative_prompt: str


# Wan-Video/Wan2.1 wan/first_last_frame2video.py, and Wan-Video/Wan2.2 wan/configs/wan_i2v_A14B.py.
FLF2V = Recipe(model="Wan2.1 FLF2V", steps=50, guidance=5.5, shift=16.0, negative_prompt="negative.txt")
EXPERTS = Recipe(model="Wan2.2", steps=40, guidance=3.5, shift=5.0, negative_prompt="negative_experts.txt")
BOUNDARY = 0.9  # share of the timesteps from which on the high-noise expert works, as published
STEPS, GUIDANCE, SHIFT = FLF2V.steps, FLF2V.guidance, FLF2V.shift


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The choices of one run; every value is checked when it is made.

    Attributes:
        negative_prompt: what to keep away from; None is the text that the model was published with.
        width: pixels, a multiple of 16; None follows the first image.
        height: pixels, a multiple of 16; None follows the first image.
        length: frames, 4n+1 and at least 5.
        seed: of the noise (drawn on the CPU, so it gives the same clip on every machine of one kind); -1 draws one.
        steps: sampling steps.
        guidance: guidance scale; 1 switches the negative prompt off and takes half the time.
        low_noise_guidance: the same for Wan2.2's low-noise expert alone; None takes ``guidance``.
        shift: how much of the schedule is spent at high noise. Of Wan2.1 16 for 720p, about 3 to 5 for 480p.
        sampler: "unipc", "dpm++" or "euler".
        fit: what to do with images of another aspect: "crop", "pad" or "stretch".
        motion: 1 to 2, above 1 for more motion between two images, see :mod:`wan_local.motion`.
        longer: how a clip longer than those of training is made, see :class:`wan_local.longer.Longer`.
        approximations: what is calculated less exactly to save time; nothing unless chosen.

    The defaults are Wan2.1 FLF2V's; :meth:`of` takes another model's.

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
    low_noise_guidance: float | None = None
    shift: float = SHIFT
    sampler: str = SAMPLER
    fit: Fit = FIT
    motion: float = STILL
    longer: Longer = AS_ANY_CLIP
    approximations: Approximations = EXACT

    def __post_init__(self) -> None:
        from .sampling import SAMPLERS

        if self.negative_prompt is not None:
            check_text("negative_prompt", self.negative_prompt)
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                check_side(name, getattr(self, name))
        check_ends(check_frames(self.length))
        check_whole("seed", self.seed, RANDOM_SEED, MAX_SEED)
        check_whole("steps", self.steps, 1, MAX_STEPS)
        check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        if self.low_noise_guidance is not None:
            check_number("low_noise_guidance", self.low_noise_guidance, 0.0, MAX_GUIDANCE)
        check_number("shift", self.shift, 0.0, MAX_SHIFT, above=True)
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler={self.sampler!r} is not known; use {', '.join(SAMPLERS)}")
        check_fit(self.fit)
        check_number("motion", self.motion, STILL, MOST_MOTION)

    def with_seed(self) -> Settings:
        """These settings with a seed drawn where it is -1."""
        return replace(self, seed=secrets.randbelow(DRAWN_SEEDS)) if self.seed == RANDOM_SEED else self

    @classmethod
    def of(cls, recipe: Recipe, **given: Any) -> Settings:
        """Settings of what is given; of what is not, or is None, the values that a model was published with."""
        own = {"steps": recipe.steps, "guidance": recipe.guidance, "shift": recipe.shift}
        return cls(**own | {name: value for name, value in given.items() if value is not None or name not in own})

    def grid(self, image_width: int, image_height: int) -> Grid:
        """The size of the clip for a first image of this size.

        Without a size the clip takes the aspect and the area of the image, at most 1280 x 720 pixels in all; with
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
        return self.longer.grid(Grid(frames=self.length, height=height, width=width))


def recipe_of(config: TransformerConfig) -> Recipe:
    """What a model was published with; of Wan2.1's other image models FLF2V's, which they are used with here."""
    return EXPERTS if config.is_expert else FLF2V


def mistaken_recipe(config: TransformerConfig, guidance: float, shift: float) -> str | None:
    """What to say where both values are exactly those of the other model; None where they are not."""
    own = recipe_of(config)
    other = FLF2V if own is EXPERTS else EXPERTS
    if (guidance, shift) != (other.guidance, other.shift):
        return None
    return (
        f"guidance {guidance:g} and shift {shift:g} are the values of {other.model}; {own.model} was published with "
        f"{own.steps} steps, guidance {own.guidance:g} and shift {own.shift:g}"
    )


def check_boundary(boundary: float) -> float:
    """Return ``boundary`` if it is 0..1, else raise :class:`InputError`."""
    if isinstance(boundary, bool) or not isinstance(boundary, int | float) or not 0 <= boundary <= 1:
        raise InputError(f"boundary={boundary!r} can't be used; give a number from 0 to 1, such as {BOUNDARY}")
    return boundary


def check_repair(how: str | None, shown: Collection[bool], asked: str = "") -> None:
    """Make sure that a repair has an image to bring the clip to; before the clip is made, too.

    Args:
        how: one of :data:`REPAIRS`; anything else asks for none.
        shown: of each image, whether the clip is to show it as it is.
        asked: how messages call the choice; "repair=..." if empty.

    Raises:
        InputError: there is none.
    """
    if how in REPAIRS[1:] and not any(shown):
        which, given = (" of full strength", " of strength 1") if shown else ("", "")
        raise InputError(
            f"{asked or f'repair={how}'} needs an image{which}; give the first, the last or a keyframe{given}, or "
            "leave the repair out"
        )


def check_fit(fit: object) -> None:
    """Raise :class:`InputError` for a way of fitting images that is none of :data:`FITS`."""
    if fit not in FITS:
        raise InputError(f"fit={fit!r} is not known; use {', '.join(FITS)}")


def check_text(name: str, text: object) -> str:
    """Return ``text`` if it is a string, else raise :class:`InputError`."""
    if not isinstance(text, str):
        raise InputError(f"{name} is {type(text).__name__} {text!r}; give one text")
    return text


def published_negative_prompt(recipe: Recipe = FLF2V) -> str:
    """The negative prompt that a model was published with; FLF2V's has two additions to the shared text."""
    return (Path(__file__).parent / "prompts" / recipe.negative_prompt).read_text(encoding="utf-8").strip()
