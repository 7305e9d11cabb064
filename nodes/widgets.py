"""Inputs that several nodes have in common, so that they read and behave the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..wan_local.attention import BACKENDS
from ..wan_local.config import TransformerConfig
from ..wan_local.errors import InputError
from ..wan_local.longer import OVERLAP, PLAIN, WAYS, WINDOW
from ..wan_local.sampling import SAMPLERS
from ..wan_local.settings import (
    FIT,
    FITS,
    FPS,
    GUIDANCE,
    LENGTH,
    MAX_SEED,
    MAX_STEPS,
    MOST_MOTION,
    REPAIRS,
    SAMPLER,
    SHIFT,
    STEPS,
    STILL,
    mistaken_recipe,
)
from ..wan_local.shapes import PIXEL_MULTIPLE, TEMPORAL_STRIDE, check_frames, check_side
from . import host
from .host import io
from .sockets.keyframes import Keyframes

NO_REPAIR = "off"
ROOT = "WanFLF2V"  # category of every node
MAX_SIDE = 8192
SHORTEST, LONGEST = TEMPORAL_STRIDE + 1, 1025  # frames; 64 seconds


def images(of_many: str = "of a batch, the first image.", *, optional: bool = False) -> list[io.Image.Input]:
    """The first and the last one; ``of_many`` says what becomes of several, ``optional`` that either may be absent."""
    ends = {"first_image": "starts", "last_image": "ends"}
    absent = " Without one the model decides." * optional
    return [
        io.Image.Input(
            name, lazy=True, optional=optional, tooltip=f"The video {does} here. Any size; {of_many}{absent}"
        )
        for name, does in ends.items()
    ]


def ends_of_clip() -> list[io.Image.Input]:
    """The images of a finished clip's ends."""
    ends = {"first_image": "starts", "last_image": "ends"}
    return [
        io.Image.Input(name, optional=True, tooltip=f"What the clip {does} at. Any size; of a batch, the first image.")
        for name, does in ends.items()
    ]


def repair() -> io.Combo.Input:
    return io.Combo.Input(
        "repair",
        options=[NO_REPAIR, *REPAIRS[1:]],
        default=NO_REPAIR,
        optional=True,
        tooltip="Bring the finished frames to the images: colour by their colours, exact so that given frames are "
        "their images. Wan FLF2V Ends has more to choose.",
    )


def keyframes(*, lazy: bool = True) -> Any:
    return Keyframes.Input(
        "keyframes", lazy=lazy, optional=True, tooltip="More images of the video, from Wan FLF2V Keyframe."
    )


def size(length: str = "length", of: str = "the video") -> list[io.Int.Input]:
    """Width, height and length; the latter may have another name, and be the length of something else."""
    side = {"min": PIXEL_MULTIPLE, "max": MAX_SIDE, "step": PIXEL_MULTIPLE}
    tooltip = "Pixels, a multiple of 16. The 14B model was trained for 1280x720 in all, in any aspect."
    return [
        io.Int.Input("width", default=1280, **side, tooltip=tooltip),
        io.Int.Input("height", default=720, **side, tooltip=tooltip),
        io.Int.Input(
            length,
            default=LENGTH,
            min=SHORTEST,
            max=LONGEST,
            step=TEMPORAL_STRIDE,
            tooltip=f"Frames of {of}: 4n+1. The model was trained on 81.",
        ),
    ]


def fps() -> io.Float.Input:
    return io.Float.Input("fps", default=FPS, min=1.0, max=120.0, step=0.01, tooltip="Frames a second.")


def fit(*, optional: bool = False) -> io.Combo.Input:
    return io.Combo.Input(
        "fit",
        options=list(FITS),
        default=FIT,
        optional=optional,
        tooltip="What to do with an image of another aspect: crop covers the video and cuts what hangs over, "
        "pad adds black bars, stretch distorts.",
    )


def motion() -> io.Float.Input:
    return io.Float.Input(
        "motion",
        default=STILL,
        min=STILL,
        max=MOST_MOTION,
        step=0.05,
        optional=True,
        tooltip="Above 1: more motion between two images, where a clip hardly moves. 1.15 to 1.3 is usual; colours "
        "stay, ghosts may come.",
    )


def longer() -> list[io.Combo.Input | io.Int.Input]:
    """How a clip longer than those of training is made."""
    return [
        io.Combo.Input(
            "longer",
            options=list(WAYS),
            default=PLAIN,
            optional=True,
            tooltip="For clips longer than the model was trained on (81 frames). riflex: one pass with a slower sense "
            "of time, so that the end does not repeat the beginning. windows: overlapping stretches, in the memory "
            "of one.",
        ),
        io.Int.Input(
            "window",
            default=WINDOW,
            min=SHORTEST,
            max=LONGEST,
            step=TEMPORAL_STRIDE,
            optional=True,
            tooltip="Frames of a window, 4n+1. Only for windows.",
        ),
        io.Int.Input(
            "overlap",
            default=OVERLAP,
            min=0,
            max=LONGEST - 1,
            step=TEMPORAL_STRIDE,
            optional=True,
            tooltip="Frames that neighbouring windows share. Only for windows.",
        ),
    ]


def attention() -> io.Combo.Input:
    return io.Combo.Input(
        "attention",
        options=["auto", *BACKENDS],
        default="auto",
        tooltip="Attention kernel; auto takes the fastest exact one this machine has.",
    )


def compiled() -> io.Boolean.Input:
    return io.Boolean.Input(
        "compile",
        default=False,
        optional=True,
        tooltip="Compile the transformer's blocks with torch: faster steps, after a first one that waits for the "
        "compiler. Needs one: Triton on a GPU, g++ on a CPU; without one the run goes on as it is.",
    )


def sampling() -> list[io.Int.Input | io.Float.Input | io.Combo.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Of the noise, which is drawn on the CPU: the same clip on any GPU.",
        ),
        *steps()[:1],
        io.Float.Input(
            "guidance",
            default=GUIDANCE,
            min=1.0,
            max=30.0,
            step=0.1,
            tooltip="How strictly to follow the prompt. 1 takes one forward a step instead of two.",
        ),
        *steps()[1:],
        sampler(),
    ]


def steps() -> list[io.Int.Input | io.Float.Input]:
    """How many, and where they go."""
    return [
        io.Int.Input("steps", default=STEPS, min=1, max=MAX_STEPS, tooltip="More is slower and finer."),
        io.Float.Input(
            "shift",
            default=SHIFT,
            min=0.01,
            max=100.0,
            step=0.01,
            tooltip="Where the steps go: higher spends more of them on the layout. 16 for 720p, 3 to 5 for 480p.",
        ),
    ]


def sampler() -> io.Combo.Input:
    return io.Combo.Input(
        "sampler",
        options=list(SAMPLERS),
        default=SAMPLER,
        tooltip="unipc is the one the model was published with.",
    )


class ChecksSize:
    """What nodes with :func:`size` and lazy inputs say of the size, before anything long has started."""

    @classmethod
    def validate_inputs(cls, length: int | None) -> bool | str:
        """True, or why this length is impossible; None is a linked value, looked at later.

        The host says what this returns once for every input that it names, guilty or not. So it names one, the one
        whose fault is likeliest; the others wait for :meth:`check_lazy_status`.
        """
        return length_refused(length) or True

    @classmethod
    def check_lazy_status(cls, width: int, height: int, length: int, **lazy: Any) -> list[str]:
        """The inputs still to be computed, if the size is possible: typed or linked, it is known by now.

        Raises:
            InputError: it is not, with the nearest possible values.
        """
        check_size(width, height, length)
        return missing(lazy)


def length_refused(length: int | None, name: str = "length") -> str:
    """Why a length is impossible; nothing where it is not, or where it is linked."""
    try:
        if length is not None:
            _check_length(length, name)
    except InputError as error:
        return str(error)
    return ""


def check_size(width: int, height: int, length: int, name: str = "length") -> None:
    """Raise :class:`InputError` for a size that is impossible; ``name`` is what the node calls its length."""
    for side_name, side in (("width", width), ("height", height)):
        check_side(side_name, side)
        _check_range(side_name, side, PIXEL_MULTIPLE, MAX_SIDE)
    _check_length(length, name)


def missing(lazy: Mapping[str, Any]) -> list[str]:
    """For ``check_lazy_status``: the inputs that the host has not computed yet."""
    return [name for name, value in lazy.items() if value is None]


def _check_length(length: int, name: str) -> None:
    check_frames(length, name)
    _check_range(name, length, SHORTEST, LONGEST)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}={value} is out of range; use {low} to {high}")


def tell_of_mistaken_values(config: TransformerConfig, guidance: float, shift: float) -> None:
    """Say on the node that its values are those that another model was published with."""
    if (text := mistaken_recipe(config, guidance, shift)) is not None:
        host.notify(text)
