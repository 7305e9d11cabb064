"""What the cloud nodes ask for: their inputs and outputs, and the requests that the inputs make, one a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from torch import Tensor

from ..wan_local.words import counted
from ..wan_remote import Request
from ..wan_remote.errors import InvalidRequest
from ..wan_remote.request import MOST_TAKES
from . import widgets
from .host import io
from .sockets.image import one_image

Lists = Mapping[str, Sequence[Any]]  # what a node gets that asks for lists: (None,) for what is not computed yet
CATEGORY = f"{widgets.ROOT}/cloud"
GRAPH = [io.Hidden.prompt, io.Hidden.extra_pnginfo]
WAIT = 30  # minutes
BLANK = np.zeros((1, 1, 3), np.uint8)  # in the place of images that are not there yet


def images() -> list[io.Image.Input]:
    return widgets.images("no batch. A list makes a clip of each.")


def minutes() -> io.Int.Input:
    return io.Int.Input(
        "wait_minutes",
        default=WAIT,
        min=1,
        max=24 * 60,
        optional=True,
        tooltip="Patience, first until the account has room for the job, then until it is done. When it runs out, "
        "queue the same inputs again.",
    )


def take() -> io.Int.Input:
    return io.Int.Input(
        "take",
        default=1,
        min=1,
        max=MOST_TAKES,
        optional=True,
        tooltip="The same inputs and take are one clip, which is paid for once. Another number pays again. It is "
        "another clip only with seed -1, which draws a new seed for each take; with a fixed seed the cloud is asked "
        "for the same clip.",
    )


def seed() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=-1,
        min=-1,
        max=2**31 - 1,
        control_after_generate=False,  # None would bring it back, set to randomize: each Run would be another bill
        tooltip="-1 draws one, which is shown on the node. The same inputs and take are the same clip, also with -1.",
    )


def outputs() -> list[Any]:
    return [io.Image.Output("images", display_name="images"), io.Video.Output("video", display_name="video")]


def list_outputs() -> list[Any]:
    """The same and the id, each a list with an item a clip: of one, where one pair of images came."""
    return [
        io.Image.Output("images", display_name="images", is_output_list=True),
        io.Video.Output("video", display_name="video", is_output_list=True),
        io.String.Output("request_id", display_name="request_id", is_output_list=True),
    ]


def check(kind: type[Request], inputs: Lists) -> list[str]:
    """For ``check_lazy_status``: the images still to be computed, if everything else can be asked for.

    Raises:
        InvalidRequest: it can't. Typed or linked, it is said before anything upstream of the images runs.
    """
    clips = inputs_of_each(inputs)
    _numbered(lambda clip: _request(kind, clip, BLANK, BLANK), clips)
    return widgets.missing(clips[0])


def requests(kind: type[Request], inputs: Lists) -> list[Request]:
    """What to ask a cloud for, a request a clip.

    Raises:
        InvalidRequest: one of them can't be asked for: nothing is sent of any then.
    """

    def made(clip: Mapping[str, Any]) -> Request:
        return _request(kind, clip, *(pixels(clip[name], name) for name in ("first_image", "last_image")))

    return _numbered(made, inputs_of_each(inputs))


def inputs_of_each(inputs: Lists) -> list[dict[str, Any]]:
    """The inputs of each clip. A list of one is everybody's.

    Raises:
        InvalidRequest: lists of different lengths. The host would repeat the last item; here that would be paid for.
    """
    lengths = {name: len(values) for name, values in inputs.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    count = lengths[longest]
    for name, length in lengths.items():
        if length not in (1, count):
            raise InvalidRequest(
                f"{name} is a list of {length} and {longest} one of {count}, and each clip is paid for; give as many "
                "of both, or one of them for all"
            )
    return [{name: values[min(index, len(values) - 1)] for name, values in inputs.items()} for index in range(count)]


def _request(kind: type[Request], clip: Mapping[str, Any], first: np.ndarray, last: np.ndarray) -> Request:
    known = {field.name for field in fields(kind)}
    return kind(first=first, last=last, **{name: value for name, value in clip.items() if name in known})


def _numbered(make: Callable[[dict[str, Any]], Request], clips: Sequence[dict[str, Any]]) -> list[Request]:
    """Every request; what is wrong with one of several says which."""
    made: list[Request] = []
    try:
        for clip in clips:
            made.append(make(clip))
    except InvalidRequest as error:
        if len(clips) == 1:
            raise
        said = f"clip {len(made) + 1} of {len(clips)}: {error}. Nothing was sent"
    else:
        return made
    raise InvalidRequest(said)


def pixels(image: Tensor, name: str) -> np.ndarray:
    """``[H, W, 3]`` uint8 of an IMAGE.

    Raises:
        InvalidRequest: a batch. Elsewhere in this pack its first image is used; here that would be paid for.
    """
    if image.ndim == 4 and image.shape[0] > 1:
        count = image.shape[0]
        raise InvalidRequest(
            f"{name} is a batch of {counted(count, 'image')}, which would be "
            f"{counted(count, 'clip')} to pay for; give one image, such as by core's ImageFromBatch, or a list if you "
            "want a clip of each"
        )
    return (one_image(image, name).movedim(0, -1) * 255.0).round().byte().cpu().numpy()
