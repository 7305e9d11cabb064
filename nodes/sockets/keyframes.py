"""WAN_FLF2V_KEYFRAMES, this pack's own socket: images of a clip at their frames, as the library has them."""

from __future__ import annotations

from torch import Tensor

from ...wan_local.keyframes import Keyframe, both_ends
from .. import host
from .image import one_image

Keyframes = host.io.Custom("WAN_FLF2V_KEYFRAMES")
"""A tuple of :class:`wan_local.keyframes.Keyframe`, in the order in which they were connected."""


def images_of_clip(
    first_image: Tensor | None, last_image: Tensor | None, keyframes: tuple[Keyframe, ...] | None
) -> list[Keyframe]:
    """All that is connected of a clip's images; of a batch at its ends the first one."""
    names = ("first_image", "last_image")
    given = zip(names, (first_image, last_image), strict=True)
    first, last = (None if image is None else one_image(image, name) for name, image in given)
    return [*both_ends(first, last, names), *(keyframes or ())]
