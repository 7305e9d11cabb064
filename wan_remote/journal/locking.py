"""Who has a job to himself: across threads, processes and whatever ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ..locks import is_at, opened, try_lock
from ..watch import SLICE, Watch, check

SAME = "another run of the same inputs"


@contextlib.asynccontextmanager
async def alone(path: Path, watch: Watch, first: str = SAME) -> AsyncIterator[None]:
    """Hold the job of a fingerprint: a second run of the same inputs, here or elsewhere, waits for the first.

    Args:
        path: of the lock of these inputs.
        watch: shows whom this one waits for, and says whether to stop.
        first: what to call the run that is waited for.

    The operating system drops the lock with the process that holds it, however that ends.

    Raises:
        StorageError: the file system knows no locks.
    """
    waiting = False
    while True:
        with opened(path) as file:
            while not try_lock(file, path):
                if not waiting:
                    watch.stage(f"{first} is under way; waiting for it")
                    waiting = True
                check(watch)
                await asyncio.sleep(SLICE)
            if not is_at(file, path):  # taken away meanwhile: whoever comes next would lock another file
                continue
            yield
            return
