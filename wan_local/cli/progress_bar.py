"""A progress bar for a terminal, and plain lines for a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from ..progress import Progress

WIDTH = 28  # characters of bar
MINUTE = 60.0
LOG_EVERY = 15.0  # seconds between the lines in a log
UNITS = {"sample": "step", "decode": "latent frame", "write": "frame", "match colours": "frame"}


class ProgressBar:
    """Call it with each :class:`Progress`; call :meth:`close` at the end.

    On a terminal one line is redrawn; elsewhere each stage gives a line at its start and end, and one now and then
    between.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._live = out.isatty()
        self._stage = ""
        self._started = self._said = 0.0
        self._began_at = 0
        self._drawn = 0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if progress.note:
            self.close()
            self._out.write(progress.note + "\n")
        if progress.stage != self._stage or progress.note:
            self.close()
            self._stage, self._started, self._began_at = progress.stage, now, progress.done
            self._said = -LOG_EVERY
        line = self._line(progress, now - self._started)
        if self._live:
            self._out.write("\r" + line.ljust(self._drawn))
            self._drawn = len(line)
        elif progress.done >= progress.total or now - self._said >= LOG_EVERY:
            self._out.write(line + "\n")
            self._said = now
        self._out.flush()

    def close(self) -> None:
        """End the line that is being redrawn."""
        if self._drawn:
            self._out.write("\n")
            self._out.flush()
            self._drawn = 0

    def say(self, text: str) -> None:
        """A line of its own."""
        self.close()
        self._out.write(text + "\n")
        self._out.flush()

    def _line(self, progress: Progress, seconds: float) -> str:
        done, total = progress.done, max(progress.total, 1)
        filled = WIDTH * done // total
        stage = progress.stage if progress.parts == 1 else f"{progress.part}/{progress.parts} {progress.stage}"
        text = f"{stage:<13} [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{progress.total}"
        text += f", {progress.skipped} skipped" if progress.skipped else ""
        worked = done - self._began_at
        if worked <= 0:
            return text
        each = seconds / worked
        if progress.stage in UNITS:
            text += f"  {each:.2f} s/{UNITS[progress.stage]},"
        if done >= progress.total:
            return f"{text} {seconds:.1f} s in all" if seconds < MINUTE else f"{text} {clock_time(seconds)} in all"
        return f"{text} {clock_time(each * (total - done))} left"


def clock_time(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
