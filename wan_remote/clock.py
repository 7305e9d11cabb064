"""Time, as an object, so that a test can let hours pass."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The real clock. Durations are measured with :meth:`monotonic`, which no change of the date disturbs."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
