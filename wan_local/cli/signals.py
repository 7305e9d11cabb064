"""Signals that end a program, as Ctrl-C does: what was made is kept, and nothing half written stays behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Of `docker stop`, systemd, Slurm and `timeout`; of a terminal that is closed; of Windows for both.
NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")


class Ended(KeyboardInterrupt):
    """A signal came; ``status`` is the exit status that shells give it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def raising() -> Iterator[None]:
    """Have them raise :class:`Ended` for a while. One that is ignored, as `nohup` has it, stays so."""
    before = {}
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(number)
