"""What a clip is asked for, checked when it is made: nothing here reaches a cloud that would refuse it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from .errors import InvalidRequest
from .transport import literal_is_public

MAX_SEED = 2**31 - 1
RANDOM_SEED = -1
MOST_TAKES = 9999
FITS = ("crop", "pad", "stretch")
LONGEST_ADDRESS = 2000  # characters
PRICED_DURATIONS = (5, 10)  # seconds, in WaveSpeedAI's price list
LONGEST_SIDE = 16384  # pixels; beyond it a picture is a mistake

log = logging.getLogger("wan_remote")


@dataclass(frozen=True, kw_only=True, eq=False)
class GMIRequest:
    """A clip from GMI Cloud's ``Wan-AI_Wan2.1-FLF2V-14B-720P``, always 1280x720.

    Attributes:
        first, last: ``[H, W, 3]`` or ``[H, W, 4]`` uint8.
        prompt: not empty.
        video_length: seconds, 5 or 10.
        prompt_extend: let the cloud write the prompt out.
        seed: 0..2147483647; -1 draws one here.
        fit: "crop", "pad" or "stretch" pictures of another aspect.
        take: which of several clips of otherwise equal inputs, from 1; another number is another job to pay for.

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
    """

    first: np.ndarray
    last: np.ndarray
    prompt: str
    video_length: int = 5
    prompt_extend: bool = False
    seed: int = RANDOM_SEED
    fit: str = "crop"
    take: int = 1

    provider: ClassVar[str] = "gmi"
    model: ClassVar[str] = "Wan-AI_Wan2.1-FLF2V-14B-720P"

    def __post_init__(self) -> None:
        _check_common(self)
        if not self.prompt.strip():
            raise InvalidRequest("prompt is empty and GMI Cloud needs one; say what happens between the images")
        if type(self.video_length) is not int or self.video_length not in (5, 10):
            raise InvalidRequest(f"video_length={self.video_length!r} can't be made by GMI Cloud; use 5 or 10 seconds")
        _check_switch("prompt_extend", self.prompt_extend)

    @property
    def size(self) -> tuple[int, int]:
        return 1280, 720

    @property
    def parameters(self) -> dict[str, Any]:
        return _parameters(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class WaveSpeedRequest:
    """A clip from WaveSpeedAI's ``wan-flf2v``.

    Attributes:
        first, last: ``[H, W, 3]`` or ``[H, W, 4]`` uint8, or the https address of a picture, which the cloud then
            fetches as it is.
        prompt, negative_prompt: may be empty.
        duration: seconds, 5..10 (the price list knows 5 and 10).
        size: "832*480", "480*832", "1280*720" or "720*1280".
        num_inference_steps: 1..40.
        guidance_scale: 0..20.
        seed: 0..2147483647; -1 draws one here.
        enable_safety_checker: the cloud's content filter.
        fit: "crop", "pad" or "stretch" pictures of another aspect.
        take: which of several clips of otherwise equal inputs, from 1; another number is another job to pay for.

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
    """

    first: np.ndarray | str
    last: np.ndarray | str
    prompt: str = ""
    negative_prompt: str = ""
    duration: int = 5
    size: str = "832*480"
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    seed: int = RANDOM_SEED
    enable_safety_checker: bool = True
    fit: str = "crop"
    take: int = 1

    provider: ClassVar[str] = "wavespeed"
    model: ClassVar[str] = "wavespeed-ai/wan-flf2v"
    SIZES: ClassVar[tuple[str, ...]] = ("832*480", "480*832", "1280*720", "720*1280")

    def __post_init__(self) -> None:
        _check_common(self)
        _check_text("negative_prompt", self.negative_prompt)
        _check_whole("duration", self.duration, 5, 10)
        if self.duration not in PRICED_DURATIONS:
            log.warning(
                "duration=%d stands in WaveSpeedAI's document but not in its price list, which knows 5 and 10; "
                "python -m wan_remote wavespeed price tells what it would cost",
                self.duration,
            )
        if self.size not in self.SIZES:
            raise InvalidRequest(f"size={self.size!r} is not offered by WaveSpeedAI; use {', '.join(self.SIZES)}")
        _check_whole("num_inference_steps", self.num_inference_steps, 1, 40)
        scale = self.guidance_scale
        good = isinstance(scale, int | float) and not isinstance(scale, bool) and math.isfinite(scale)
        if not good or not 0 <= scale <= 20:
            raise InvalidRequest(f"guidance_scale={scale!r} is out of range; use 0 to 20")
        _check_switch("enable_safety_checker", self.enable_safety_checker)

    @property
    def pixels(self) -> tuple[int, int]:
        width, height = self.size.split("*")
        return int(width), int(height)

    @property
    def parameters(self) -> dict[str, Any]:
        return {**_parameters(self), "guidance_scale": float(self.guidance_scale)}  # 5 and 5.0 are the same wish


Request = GMIRequest | WaveSpeedRequest


def seconds_of(request: Request) -> int:
    """How long the clip is to be."""
    return request.video_length if isinstance(request, GMIRequest) else request.duration


def frame_size(request: Request) -> tuple[int, int]:
    """Width and height of the clip in pixels."""
    return request.size if isinstance(request, GMIRequest) else request.pixels


def _parameters(request: Request) -> dict[str, Any]:
    """Everything that is asked of the cloud but the pictures."""
    apart = ("first", "last", "take")
    return {row.name: getattr(request, row.name) for row in fields(request) if row.name not in apart}


def _check_common(request: Request) -> None:
    _check_text("prompt", request.prompt)
    _check_whole("seed", request.seed, RANDOM_SEED, MAX_SEED)
    _check_whole("take", request.take, 1, MOST_TAKES)
    if request.fit not in FITS:
        raise InvalidRequest(f"fit={request.fit!r} is not known; use {', '.join(FITS)}")
    for name in ("first", "last"):
        picture = getattr(request, name)
        if isinstance(picture, str):
            _check_address(name, picture, request)
        else:
            _check_picture(name, picture)


def _check_address(name: str, address: str, request: Request) -> None:
    if isinstance(request, GMIRequest):
        raise InvalidRequest(f"{name} is an address and GMI Cloud takes only files; save the picture and name the file")
    if request.fit != FITS[0]:
        raise InvalidRequest(
            f"fit={request.fit!r} can't be done to {name}, which is an address: the cloud fetches that picture as it "
            "is; leave fit out, or save the picture and name the file"
        )
    if why := _no_address(address):
        raise InvalidRequest(f"{name} can't be fetched by the cloud: {why}; give an https address, or a file")


def _no_address(address: str) -> str:
    """Why nothing in the open network can be fetched from an address; empty if something may."""
    if len(address) > LONGEST_ADDRESS or not all("!" <= character <= "~" for character in address):
        return "it is too long, or has spaces or other letters in it than an address has"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme != "https" or not host:
        return "it does not begin with https:// and a host"
    if parts.username or parts.password:
        return "it holds a user name, which would be sent along"
    public = literal_is_public(host)
    if public is None:
        name = host.removesuffix(".")
        public = "." in name and not name.endswith((".local", ".localhost", ".internal"))
    return "" if public else f"{host} is of this machine or network"


def _check_picture(name: str, picture: Any) -> None:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = getattr(picture, "dtype", type(picture).__name__)
        raise InvalidRequest(f"{name} is {kind}; give one picture as uint8 [height, width, 3 or 4]")
    shape = picture.shape
    if len(shape) != 3 or shape[2] not in (3, 4) or 0 in shape or max(shape[:2]) > LONGEST_SIDE:
        raise InvalidRequest(
            f"{name} has shape {list(shape)}; give one picture [height, width, 3 or 4], at most {LONGEST_SIDE} a side"
        )


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {type(value).__name__}; give a text")


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}={value!r} is no switch; use true or false")


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(f"{name}={value!r} can't be used; give a whole number from {low} to {high}")
