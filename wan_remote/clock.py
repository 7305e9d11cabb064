"""Time, as an object, so that a test can let hours pass."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, as the text says


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


def moment_text(seconds: float) -> str:
    """Seconds since 1970 in words: "2026-11-26 10:59:00 UTC". Any moment up to the year 9999, on any machine."""
    return f"{EPOCH + timedelta(seconds=round(seconds)):%Y-%m-%d %H:%M:%S} UTC"
