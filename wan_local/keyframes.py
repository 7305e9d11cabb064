"""What is given of a clip: images, or pieces of a clip, at frames, and how strictly each counts.

A latent frame stands for four video frames, and the last of the four is the place of the last image that the models
were trained with. So an image stands at a multiple of 4, one a latent frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .errors import InputError
from .images import AnyImage, to_tensor
from .notices import tell
from .shapes import FIRST_CHUNK, TEMPORAL_STRIDE, check_frames, latent_frames, video_frames
from .weights.experts import LOW
from .words import counted

FIRST, LAST = 0, -1
"""Frames of a clip; as in Python, those below 0 count from its end."""

FULL = 1.0  # strength of an image that the clip is to show as it is


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Keyframe:
    """One image of a clip, or a piece of a clip that begins there.

    Attributes:
        images: ``[N, 3, H0, W0]`` 0..1, of any size; N is 1, or 1 + 4k for a piece of a clip.
        frame: of the first of them; -1 is the last frame of the clip, -2 the one before.
        strength: 0..1, what the mask says there; at 0 it is as if the image were not given.
        low_noise_strength: the same for the low-noise one of two experts; None takes ``strength``.
        whole_group: mark the whole latent frame of an image in the middle, for weights that were trained so. Its other
            three frames are grey all the same.
        name: how messages call it.

    Raises:
        InputError: a strength outside 0..1, or a number of images that is no piece of a clip.
    """

    images: Tensor
    frame: int
    strength: float = FULL
    low_noise_strength: float | None = None
    whole_group: bool = False
    name: str = "keyframe"

    def __post_init__(self) -> None:
        _check_strength(self.name, "strength", self.strength)
        if self.low_noise_strength is not None:
            _check_strength(self.name, "low_noise_strength", self.low_noise_strength)
        if isinstance(self.frame, bool) or not isinstance(self.frame, int):
            raise InputError(
                f"{self.name} has frame={self.frame!r}; give a whole number, such as 40, or -1 for the last"
            )
        count = len(self.images)
        if count < 1 or (count - FIRST_CHUNK) % TEMPORAL_STRIDE:
            below = max(FIRST_CHUNK, video_frames(latent_frames(count)))
            raise InputError(
                f"{self.name} has {counted(count, 'image')}; give 1, or a piece of a clip of 4n+1 frames: {below} or "
                f"{below + TEMPORAL_STRIDE}"
            )

    @property
    def shown(self) -> bool:
        """Whether the clip is to show it as it is."""
        return self.strength >= FULL

    def at(self, level: str | None) -> float:
        """The strength for one of two experts, "high" or "low"; None where one model does every step."""
        own = self.low_noise_strength
        return self.strength if own is None or level != LOW else own


def both_ends(
    first: AnyImage | None, last: AnyImage | None, names: tuple[str, str] = ("first image", "last image")
) -> list[Keyframe]:
    """The first and the last image of a clip, those that are given; ``names`` are what messages call them.

    Raises:
        InputError: what is no image, see :func:`wan_local.images.to_tensor`.
    """
    given = zip(names, (first, last), (FIRST, LAST), strict=True)
    return [
        Keyframe(images=to_tensor(image, name)[None], frame=frame, name=name)
        for name, image, frame in given
        if image is not None
    ]


def placed(keyframes: Sequence[Keyframe], frames: int) -> dict[int, Keyframe]:
    """Where the images of a clip stand: frame, from 0, to one image, in order.

    A frame that is no multiple of 4 is moved to the nearest, see :func:`tell_of_moves`. A piece of a clip gives its
    images to the frames from its own on.

    Args:
        keyframes: in any order.
        frames: ``F``, of the clip.

    Returns:
        for each frame that is given a :class:`Keyframe` with the one image ``[1, 3, H0, W0]``.

    Raises:
        InputError: none at all, one outside the clip, two at one frame, or more than there is room for.
    """
    check_frames(frames)
    if not keyframes:
        raise InputError("no image is given; give a first image, a last image or keyframes")
    room = latent_frames(frames)
    if len(keyframes) > room:
        raise InputError(
            f"{counted(len(keyframes), 'image')} are given and length={frames} has room for {room}, one every "
            f"{TEMPORAL_STRIDE} frames; give fewer, or make the clip longer"
        )
    found: dict[int, Keyframe] = {}
    for keyframe in keyframes:
        start = place_of(keyframe, frames)
        for index in range(len(keyframe.images)):
            frame = start + index
            if frame in found:
                raise InputError(_twice(found[frame], keyframe, frame, frames))
            found[frame] = replace(keyframe, images=keyframe.images[index : index + 1])
    return dict(sorted(found.items()))


def strengths(keyframes: Mapping[int, Keyframe], level: str | None = None) -> dict[int, float]:
    """Frame to strength, of those that count at all for this expert; see :meth:`Keyframe.at`."""
    found = {frame: keyframe.at(level) for frame, keyframe in keyframes.items()}
    return {frame: strength for frame, strength in found.items() if strength > 0}


def tell_of_moves(keyframes: Sequence[Keyframe], frames: int) -> None:
    """Tell the user which of them do not stand where they were asked for."""
    for keyframe in keyframes:
        place = place_of(keyframe, frames)
        if keyframe.frame % frames != place:
            tell(
                f"{keyframe.name} at frame {keyframe.frame} is moved to frame {place}"
                f"{', the last' * (place == frames - 1)}: images stand at every {TEMPORAL_STRIDE}th frame"
            )


def place_of(keyframe: Keyframe, frames: int) -> int:
    """The frame, from 0, that its first image gets in a clip of ``frames``; errors as for :func:`placed`."""
    asked, count = keyframe.frame, len(keyframe.images)
    frame = asked + frames if asked < 0 else asked
    if not 0 <= frame < frames:
        raise InputError(
            f"{keyframe.name} is at frame {asked}, outside a clip of {counted(frames, 'frame')}; use 0 to "
            f"{frames - 1}, or {-frames} to -1 from the end"
        )
    place = (frame + TEMPORAL_STRIDE // 2) // TEMPORAL_STRIDE * TEMPORAL_STRIDE
    if place + count > frames:
        raise InputError(
            f"{keyframe.name} is a piece of {counted(count, 'frame')} from frame {place} on, and the clip ends at "
            f"frame {frames - 1}; "
            + (f"use frame {frames - count} or below" if count <= frames else "give fewer images")
        )
    return place


def _twice(one: Keyframe, other: Keyframe, frame: int, frames: int) -> str:
    moved = any(place_of(each, frames) != each.frame % frames for each in (one, other))
    asked = f" (asked for: {one.frame} and {other.frame})" if moved else ""
    return (
        f"two images stand at frame {frame}{asked}: {one.name} and {other.name}; leave one out, or give frames at "
        f"least {TEMPORAL_STRIDE} apart"
    )


def _check_strength(owner: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{owner} has {name}={value!r}; give a number from 0 to 1")
