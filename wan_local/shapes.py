"""From pixels to latents to tokens: the only file that knows 4, 8, 16 and 2.

Plain Python, no torch. Read it after ``generate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError

TEMPORAL_STRIDE = 4  # video frames per latent frame, after the first
SPATIAL_STRIDE = 8  # pixels per latent cell along each side
PATCH = 2  # latent cells per token along each side
PIXEL_MULTIPLE = SPATIAL_STRIDE * PATCH  # 16: sizes the transformer can cut into whole tokens
FIRST_CHUNK = 1  # the first latent frame stands for one video frame, each later one for four


def latent_frames(frames: int) -> int:
    """Latent frames ``T`` for ``frames`` video frames (``T = (F - 1) / 4 + 1``)."""
    return (frames - FIRST_CHUNK) // TEMPORAL_STRIDE + 1


def latent_frame(frame: int) -> int:
    """The latent frame, from 0, that the video frame ``frame`` lies in."""
    return (frame - FIRST_CHUNK) // TEMPORAL_STRIDE + 1


def video_frames(latents: int) -> int:
    """Video frames ``F`` that ``latents`` latent frames decode to (``F = 4 (T - 1) + 1``)."""
    return (latents - 1) * TEMPORAL_STRIDE + FIRST_CHUNK


def check_frames(frames: int, name: str = "length") -> int:
    """Return ``frames`` if it is 4n+1 and positive; raise :class:`InputError` naming the nearest legal lengths."""
    if isinstance(frames, bool) or not isinstance(frames, int):
        raise InputError(f"{name}={frames!r} is not a whole number of frames; use 4n+1, such as 81")
    if frames < 1:
        raise InputError(f"{name}={frames} has no frames; use 4n+1 with n >= 0, such as 81")
    if (frames - FIRST_CHUNK) % TEMPORAL_STRIDE:
        below = video_frames(latent_frames(frames))
        raise InputError(f"{name}={frames} is not 4n+1; use {below} or {below + TEMPORAL_STRIDE}")
    return frames


def check_ends(frames: int) -> int:
    """Return ``frames`` if a first and a last frame have room in them; else raise :class:`InputError`."""
    shortest = video_frames(2)
    if frames < shortest:
        raise InputError(f"length={frames} has no room for a first and a last frame; use {shortest} or more, as 4n+1")
    return frames


def check_side(name: str, pixels: int) -> int:
    """Return ``pixels`` if it is a positive multiple of 16; raise :class:`InputError` naming the nearest ones."""
    if isinstance(pixels, bool) or not isinstance(pixels, int):
        raise InputError(f"{name}={pixels!r} is not a whole number of pixels; use a multiple of {PIXEL_MULTIPLE}")
    if pixels < PIXEL_MULTIPLE or pixels % PIXEL_MULTIPLE:
        below = pixels // PIXEL_MULTIPLE * PIXEL_MULTIPLE
        choices = [str(side) for side in (below, below + PIXEL_MULTIPLE) if side >= PIXEL_MULTIPLE]
        raise InputError(f"{name}={pixels} is not a multiple of {PIXEL_MULTIPLE}; use {' or '.join(choices[:2])}")
    return pixels


def nearest_size(width: float, height: float) -> tuple[int, int]:
    """``(width, height)`` floored to multiples of 16, after rounding to whole pixels.

    The official code floors the unrounded float, so a plain 832x480 becomes 832x464; rounding first is right.
    """

    def floored(side: float) -> int:
        return max(PIXEL_MULTIPLE, round(side) // PIXEL_MULTIPLE * PIXEL_MULTIPLE)

    return floored(width), floored(height)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The size of one clip in pixels, in latents and in tokens.

    Args:
        frames: video frames ``F``, 4n+1.
        height: pixels ``H``, a multiple of 16.
        width: pixels ``W``, a multiple of 16.
        forward: the most video frames that one forward of the transformer sees; None is all of them.

    Raises:
        InputError: a size the model can't do, with the nearest ones it can.
    """

    frames: int
    height: int
    width: int
    forward: int | None = None

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_side("height", self.height)
        check_side("width", self.width)

    @property
    def in_a_forward(self) -> Grid:
        """The size of what one forward of the transformer sees."""
        return Grid(frames=min(self.frames, self.forward or self.frames), height=self.height, width=self.width)

    @property
    def latent_frames(self) -> int:
        return latent_frames(self.frames)

    @property
    def latent_height(self) -> int:
        return self.height // SPATIAL_STRIDE

    @property
    def latent_width(self) -> int:
        return self.width // SPATIAL_STRIDE

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(T, h, w)``."""
        return self.latent_frames, self.latent_height, self.latent_width

    @property
    def tokens(self) -> int:
        """Video tokens ``L = T * h/2 * w/2`` that the transformer attends over."""
        return self.latent_frames * (self.latent_height // PATCH) * (self.latent_width // PATCH)
