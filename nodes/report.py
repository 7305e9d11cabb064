"""The library's progress on the host's bar and in words, a preview of the clip's middle, and an ear for stop."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from ..wan_local.progress import Progress
from . import convert, host

BAR = 1000  # units of the bar
DOING = {"encode text": "encoding the prompt", "encode images": "encoding the images", "decode": "decoding"}


class Reporter:
    """Give an instance as ``on_progress``: every call may raise the host's interruption.

    Args:
        shares: stage to its share of the whole, in the order the stages run; the shares add up to 1.
        device: where previews are computed.
    """

    def __init__(self, shares: Mapping[str, float], device: torch.device) -> None:
        self._show = host.progress_bar(BAR)
        self._preview = host.previewer(device)
        self._span: dict[str, tuple[float, float]] = {}
        self._began = time.perf_counter()  # of sampling
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
        start, share = self._span[progress.stage]
        done = start + share * progress.done / max(progress.total, 1)
        self._show(round(BAR * min(done, 1.0)), self._picture(progress.x0))

    def _words(self, progress: Progress) -> str:
        """What is being done; when sampling also seconds a step: whether a speed is normal is what people ask most."""
        count = f" {progress.done}/{progress.total}" if progress.total > 1 and progress.done else ""
        if progress.stage != "sample":
            return DOING[progress.stage] + count
        now = time.perf_counter()
        if progress.done == 0:
            self._began = now
            return "sampling"
        pace = (now - self._began) / progress.done
        left = pace * (progress.total - progress.done)
        return f"sampling step {progress.done}/{progress.total}, {pace:.2f} s/step, {left:.0f} s left"

    def _picture(self, x0: torch.Tensor | None) -> object:
        """The stock preview shows the start of the clip, which the user has; the middle is what is made."""
        if x0 is None or self._preview is None:
            return None
        return self._preview(convert.middle_frame(x0))
