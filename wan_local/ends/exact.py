"""What is left of the difference between a frame and its image, given to the frames near it.

The frame itself becomes the image. A frame ``j`` beside it gets the difference, fetched along the motion, times
``cos(pi j / 2 reach) ** 2`` and times ``exp(-(d / 0.06) ** 2)``, where ``d`` is how much the softened frames differ at
that place: detail goes only where the two show the same. What is wider than 4 pixels goes twice as far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .blur import blurred
from .flow import flow_between, inside, luma, resized, shrunk, slopes, warped

SOFT = 1.0  # sigma in pixels that frames are compared at
AROUND = 2.0  # sigma in pixels of what counts as one place
COARSE = 4.0  # sigma in pixels above which a difference is coarse
COARSE_REACH = 2  # times the reach
ALIKE = 0.06  # of the difference of softened frames
ROUND = 8  # pixels around a place
BETTER = 0.8  # of the difference without motion, what the motion must leave at most to be believed
BESIDE = 1.5  # pixels from its place, beyond which something stands beside it
TOGETHER = 0.9  # of what stands beside its place, the share that must be one and the same shift
NOISE_SHARE = 1.3  # noise above 2 pixels over that above 1 pixel, in which it is measured
TINY = 1e-9
NORMAL = 0.6745  # the median deviation of a normal distribution over its standard deviation


@dataclass(frozen=True, kw_only=True, slots=True)
class Landing:
    """Where a frame landed beside its image.

    Attributes:
        pixels: how far what has an edge stands from its place: the median, edges weighted by their contrast.
        together: length of the mean of these shifts over ``pixels``: 1 where all is shifted alike.
        trust: ``[1, 1, h, w]`` 0..1 at the size of flows, where it stands in its place.
    """

    pixels: float
    together: float
    trust: Tensor

    @property
    def beside(self) -> bool:
        """Whether the frame as a whole landed beside its image: the difference of the two is then no detail."""
        return self.pixels > BESIDE and self.together > TOGETHER


def landing(frame: Tensor, image: Tensor) -> Landing:
    """Compare a frame with its image, both ``[1, 3, H, W]`` 0..1."""
    target = blurred(shrunk(image), SOFT)
    scale = frame.shape[2] / target.shape[2]
    shift = scale * flow_between(target, blurred(shrunk(frame), SOFT))  # [1, 2, h, w]
    length = torch.linalg.vector_norm(shift, dim=1, keepdim=True)
    right, down = slopes(luma(target))
    contrast = right.square() + down.square() + TINY
    far, weight = (each.flatten().cpu().double() for each in (length, contrast))  # not every GPU has float64
    far, order = far.sort()
    weight = weight[order].cumsum(0)
    pixels = far[int(torch.searchsorted(weight, weight[-1] / 2))].item()
    mean = (shift * contrast).sum((2, 3)) / contrast.sum()
    return Landing(
        pixels=pixels,
        together=mean.norm().item() / max(pixels, TINY),
        trust=blurred((length < BESIDE).float(), AROUND),
    )


class Spread:
    """Gives the difference at one frame to those beside it, on one side, in order of their distance.

    Args:
        frame: ``[1, 3, H, W]`` 0..1, its colours corrected.
        image: what it should be.
        reach: frames over which fine detail fades.
        room: frames to the next one that is given, where everything has faded.
        trust: of :class:`Landing`.
    """

    def __init__(self, frame: Tensor, image: Tensor, reach: int, room: int, trust: Tensor) -> None:
        self._reach, self._trust = min(reach, room), trust
        self.reach = min(COARSE_REACH * reach, room)
        self._frame, self._soft = frame, blurred(shrunk(frame), SOFT)
        drawn = _apart(blurred(shrunk(image), SOFT), self._soft)
        self._detail = torch.exp(-(drawn / ALIKE).square())  # 1 where the two show the same, and differ in detail
        coarse = blurred(image - frame, COARSE)
        self._fine, self._coarse = image - frame - coarse, shrunk(coarse)
        self._flow: Tensor | None = None
        self._last = 0

    def __call__(self, frame: Tensor, distance: int) -> Tensor:
        """``frame [1, 3, H, W]``, ``distance`` frames away, with its share of the difference."""
        flow, difference = self._motion(blurred(shrunk(frame), SOFT), distance)
        alike = torch.exp(-(difference / ALIKE).square())  # [1, 1, h, w]
        share = _grown(_faded(distance, self.reach) * alike * warped(self._coarse, flow), frame)
        if fine := _faded(distance, self._reach):
            flow = resized(flow, frame)
            if self._last == 0:
                self._fine = _without_noise(self._fine, frame - warped(self._frame, flow, "bicubic"))
            share = share + fine * _grown(alike, frame) * warped(self._fine, flow, "bicubic")
        self._last = distance
        return frame + share

    def _motion(self, soft: Tensor, distance: int) -> tuple[Tensor, Tensor]:
        """The flow to where each pixel lay, 0 where standing still explains as much, and what differs all the same."""
        start = None if self._flow is None else self._flow * (distance / self._last)
        self._flow = flow_between(soft, self._soft, start)
        moved = _apart(soft, warped(self._soft, self._flow)) + 1 - inside(self._flow)
        believed = (moved < BETTER * _apart(soft, self._soft)).to(soft)
        flow = self._flow * blurred(believed, AROUND) * self._trust
        difference = _apart(soft, warped(self._soft, flow)) + 1 - inside(flow)
        # Something drawn otherwise is given on only where nothing around it has moved: half of it would be a ghost.
        around = F.max_pool2d(difference, 2 * ROUND + 1, stride=1, padding=ROUND)
        return flow, torch.lerp(around, difference, warped(self._detail, flow))


def _grown(image: Tensor, like: Tensor) -> Tensor:
    """``[1, C, h, w]`` at the size of ``like``."""
    return F.interpolate(image, size=like.shape[2:], mode="bilinear", align_corners=False)


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """``[1, 1, H, W]``"""
    return blurred((one - other).abs().mean(1, keepdim=True), AROUND)


def _faded(distance: int, reach: int) -> float:
    return math.cos(math.pi * distance / (2 * reach)) ** 2 if distance < reach else 0.0


def _without_noise(fine: Tensor, change: Tensor) -> Tensor:
    """Fine detail without the noise of its own frame, which no other frame has.

    Wiener's filter. How strong the noise is tells the change to the frame beside, which has twice as much of it.
    """
    variance = ((change - blurred(change, SOFT)).abs().median() / NORMAL).square() / 2
    high = fine - blurred(fine, AROUND)
    local = blurred(high.square().mean(1, keepdim=True), AROUND)
    return fine - high * (NOISE_SHARE * variance / local.clamp_min(1e-8)).clamp_max(1.0)
