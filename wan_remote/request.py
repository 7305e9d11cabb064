"""What a clip is asked for, checked when it is made: nothing here reaches a cloud that would refuse it.

What all clouds have in common; each cloud's own request stands in its file below ``providers/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from .errors import InvalidRequest
from .transport import literal_is_public, web_parts

MAX_SEED = 2**31 - 1
RANDOM_SEED = -1
MOST_TAKES = 9999
FITS = ("crop", "pad", "stretch")
LONGEST_ADDRESS = 2000  # characters
LONGEST_SIDE = 16384  # pixels; beyond it an image is a mistake


@dataclass(frozen=True, kw_only=True, eq=False)
class Request(ABC):
    """A clip between two images.

    Attributes:
        first, last: ``[H, W, 3]`` or ``[H, W, 4]`` uint8; where the cloud takes addresses also the https address of an
            image, which it then fetches as it is.
        prompt: what happens in between.
        seed: 0..2147483647; -1 draws one here.
        fit: "crop", "pad" or "stretch" images of another aspect.
        take: which of several clips of otherwise equal inputs, from 1; another number is another job to pay for, and
            another clip where ``seed`` is -1 (see :func:`same_again`).

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
    """

    first: np.ndarray | str
    last: np.ndarray | str
    prompt: str
    seed: int = RANDOM_SEED
    fit: str = FITS[0]
    take: int = 1

    provider: ClassVar[str]
    """The cloud's short name: in the journal, on the command line, of its folder."""
    label: ClassVar[str]
    """The cloud's name as people know it."""
    model: ClassVar[str]
    """What the cloud calls the model."""
    addresses: ClassVar[bool] = False
    """Whether it fetches images by their address."""

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_whole("seed", self.seed, RANDOM_SEED, MAX_SEED)
        check_whole("take", self.take, 1, MOST_TAKES)
        if self.fit not in FITS:
            raise InvalidRequest(f"fit={self.fit!r} is not known; use {', '.join(FITS)}")
        for name in ("first", "last"):
            image = getattr(self, name)
            if isinstance(image, str):
                self._check_address(name, image)
            else:
                _check_image(name, image)

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that is asked of the cloud but the images, which hold what ``fit`` did to them."""
        apart = ("first", "last", "fit", "take")
        return {row.name: getattr(self, row.name) for row in fields(self) if row.name not in apart}

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of the clip in pixels."""
        width, height, _ = self.clip_of(self.parameters)
        return width, height

    @classmethod
    @abstractmethod
    def clip_of(cls, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        """Width, height and seconds of the clip that parameters ask for."""

    def _check_address(self, name: str, address: str) -> None:
        if not self.addresses:
            raise InvalidRequest(
                f"{name} is an address and {self.label} takes only files; save the image and name the file"
            )
        if self.fit != FITS[0]:
            raise InvalidRequest(
                f"fit={self.fit!r} can't be done to {name}, which is an address: the cloud fetches that image as it "
                "is; leave fit out, or save the image and name the file"
            )
        if why := _no_address(address):
            raise InvalidRequest(f"{name} can't be fetched by the cloud: {why}; give an https address, or a file")


def same_again(seed: int, take: int) -> str:
    """What to tell somebody who asks for one more take of a fixed seed; empty where a take is another clip. No error:
    where a job was lost, the same once more is what one may want."""
    if take == 1 or seed == RANDOM_SEED:
        return ""
    return (
        f"take {take} of seed={seed} asks the cloud for the same clip as take 1 and is paid for apart; for another "
        f"clip change the seed, or leave it at {RANDOM_SEED}, which draws another for each take"
    )


def _no_address(address: str) -> str:
    """Why nothing in the open network can be fetched from an address; empty if something may."""
    if len(address) > LONGEST_ADDRESS or not all("!" <= character <= "~" for character in address):
        return "it is too long, or has spaces or other letters in it than an address has"
    parts = web_parts(address)
    if parts is None or parts.scheme != "https":
        return "it does not begin with https:// and a host"
    if parts.username or parts.password:
        return "it holds a user name, which would be sent along"
    host = parts.hostname or ""
    public = literal_is_public(host)
    if public is None:
        name = host.removesuffix(".")
        public = "." in name and not name.endswith((".local", ".localhost", ".internal"))
    return "" if public else f"{host} is of this machine or network"


def _check_image(name: str, image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise InvalidRequest(f"{name} is {kind}; give one image as uint8 [height, width, 3 or 4]")
    shape = image.shape
    if len(shape) != 3 or shape[2] not in (3, 4) or 0 in shape or max(shape[:2]) > LONGEST_SIDE:
        raise InvalidRequest(
            f"{name} has shape {list(shape)}; give one image [height, width, 3 or 4], at most {LONGEST_SIDE} a side"
        )


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {type(value).__name__}; give a text")


def check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}={value!r} is no switch; use true or false")


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(f"{name}={value!r} can't be used; give a whole number from {low} to {high}")
