"""Stages on one line of a terminal, or a line each where there is none; and the stop of Ctrl-C."""

from __future__ import annotations

import time
from typing import TextIO

from ..watch import Watch

WIDTH = 100
EVERY = 5.0  # seconds between two lines that say nearly the same


class ProgressLine(Watch):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._stopped = False
        self._last, self._at = "", 0.0

    def stop(self) -> None:
        self._stopped = True

    def interrupted(self) -> bool:
        return self._stopped

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        share = f" {100.0 * done / total:3.0f} %" if done is not None and total else ""
        text = text.partition("\n")[0]  # of several clips, their counts
        line, now = (text + share)[:WIDTH], time.monotonic()
        kind = text.split(",")[0]
        if not self._live and kind == self._last and now - self._at < EVERY:
            return
        self._last, self._at = kind, now
        print(
            f"\r{line:{WIDTH}}" if self._live else line, end="" if self._live else "\n", file=self._stream, flush=True
        )

    def clear(self) -> None:
        if self._live:
            print("\r" + " " * WIDTH, end="\r", file=self._stream, flush=True)
