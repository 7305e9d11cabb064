"""Clocks for tests: one that lets hours pass in no time, one that lets them pass quickly, one that waits less."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from wan_remote.clock import Clock


class FakeClock(Clock):
    """Time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.wall = time.time()
        self._at: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def time(self) -> float:
        return self.wall

    async def sleep(self, seconds: float) -> None:
        self.pause(max(0.0, seconds))
        await asyncio.sleep(0)

    def pause(self, seconds: float) -> None:
        """The machine sleeps: both ways to tell the time go on."""
        self.elapsed += seconds
        self.wall += seconds
        for moment, action in [row for row in self._at if row[0] <= self.elapsed]:
            self._at.remove((moment, action))
            action()

    def jump(self, seconds: float) -> None:
        """Somebody sets the date."""
        self.wall += seconds

    def at(self, elapsed: float, action: Callable[[], object]) -> None:
        """Do something once that much time has passed."""
        self._at.append((elapsed, action))


class FastClock(FakeClock):
    """Real time, ``scale`` real seconds for each second; several runs may wait at once."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale, self._start, self._extra = scale, time.monotonic(), 0.0

    def monotonic(self) -> float:
        return 1000.0 + self._extra + (time.monotonic() - self._start) / self._scale

    def time(self) -> float:
        return self.wall + self.monotonic() - 1000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._scale)

    def pause(self, seconds: float) -> None:
        self._extra += seconds


class Impatient(FastClock):
    """Waits and limits end after a twentieth of the time, but the date is the real one: for whole programs."""

    def __init__(self) -> None:
        super().__init__(1 / 20)

    def time(self) -> float:
        return time.time()
