"""Who has a job to himself: across threads, processes and whatever ends them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ..errors import StorageError
from ..locks import is_at, opened, try_lock
from ..watch import SLICE, Watch, check

LONGEST_CLAIM = 60.0  # seconds that one claim may take at most; it reads small files
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


@contextlib.contextmanager
def claiming(path: Path) -> Iterator[None]:
    """While an id found in a cloud's list is taken for an entry, nobody else takes one.

    Raises:
        StorageError: somebody else does not end to, or the file system knows no locks.
    """
    end = time.monotonic() + LONGEST_CLAIM
    with opened(path) as file:
        while not try_lock(file, path):
            if time.monotonic() > end:
                raise StorageError(f"{path} is held by another program; nothing was sent, end that one")
            time.sleep(0.05)
        yield
