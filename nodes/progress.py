"""What a node shows: the library's progress while it runs, with an ear for stop, and a line that stays at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from ..wan_local.config import LatentRGB
from ..wan_local.progress import Progress
from ..wan_local.words import counted
from . import host

BAR = 1000  # units of the bar
CODE = " " * 4  # Nodes 2.0 takes texts for Markdown, in which this keeps lines and stars as they are
DOING = {"encode text": "encoding the prompt", "encode images": "encoding the images", "decode": "decoding",
         "match colours": "matching colours", "match ends": "matching ends"}  # fmt: skip
STOPPED, FAILED = "stopped", "failed"


class Reporter:
    """Give an instance as ``on_progress``: every call may raise the host's interruption.

    Args:
        shares: stage to its share of the whole, in the order the stages run; the shares add up to 1.
        device: where previews are computed.
        latent_rgb: of the VAE whose latents are previewed, see :func:`host.previewer`.
    """

    def __init__(self, shares: Mapping[str, float], device: torch.device, latent_rgb: LatentRGB = ()) -> None:
        self._show = host.progress_bar(BAR)
        self._preview = host.previewer(device, latent_rgb)
        self._span: dict[str, tuple[float, float]] = {}
        self._began = time.perf_counter()  # of sampling
        self._steps: list[float] = []  # when each step of the clip ended, behind when it began
        start = 0.0
        for stage, share in shares.items():
            self._span[stage] = (start, share)
            start += share

    def __call__(self, progress: Progress) -> None:
        host.stop_if_asked()
        if progress.note:
            host.notify(progress.note)
        if progress.stage not in self._span:
            return
        host.show_text(self._words(progress))
        done = self._done(progress)
        preview = None if progress.x0 is None or self._preview is None else self._preview(progress.x0)
        self._show(round(BAR * min(done, 1.0)), preview)

    @property
    def step_seconds(self) -> float | None:
        """What a step of the last clip took; the first, which may load weights or compile, counts only if alone."""
        took = [end - begin for begin, end in pairwise(self._steps)]
        return statistics.median(took[1:] or took) if took else None

    def _done(self, progress: Progress) -> float:
        """Share of the whole. Of several clips all are sampled one after the other, and then decoded."""
        start, share = self._span[progress.stage]
        here = share * progress.done / max(progress.total, 1)
        if progress.parts == 1:
            return start + here
        begin, size = (start, share) if progress.stage == "decode" else (0.0, self._span["decode"][0])
        return begin + (size * (progress.part - 1) + start - begin + here) / progress.parts

    def _words(self, progress: Progress) -> str:
        clip = "" if progress.parts == 1 else f"clip {progress.part}/{progress.parts}: "
        return clip + self._stage(progress)

    def _stage(self, progress: Progress) -> str:
        """What is being done; when sampling also seconds a step: whether a speed is normal is what people ask most."""
        count = f" {progress.done}/{progress.total}" if progress.total > 1 and progress.done else ""
        if progress.stage != "sample":
            return DOING[progress.stage] + count
        now = time.perf_counter()
        if progress.done == 0:
            self._began = now
            self._steps = [now]
            return "sampling"
        self._steps.append(now)
        pace = (now - self._began) / progress.done
        left = pace * (progress.total - progress.done)
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        return f"sampling step {progress.done}/{progress.total}{skipped}, {pace:.2f} s/step, {left:.0f} s left"


@contextmanager
def ending() -> Iterator[None]:
    """Take the stage off the running node if what is done here is stopped or fails. Also decorates a function.

    A stop shows its own text where it has one.
    """
    node = host.running_node()
    try:
        yield
    except BaseException as error:
        host.show_text(FAILED if host.is_failure(error) else str(error) or STOPPED, node)
        raise


def summary(images: Tensor, fps: float) -> str:
    """What came out, of IMAGE ``[F, H, W, 3]``: "81 frames of 1280x720, 5.06 s at 16 fps"; ``fps`` 0 is not known."""
    frames, height, width = images.shape[:3]
    lasting = f", {frames / fps:.2f} s at {fps:g} fps" if fps else ""
    return f"{counted(frames, 'frame')} of {width}x{height}{lasting}"
