"""Locks of the operating system on files: they go with the process that holds them, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StorageError

LONGEST_HELD = 60.0  # seconds that one program may take to read and write small files
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what a lock that somebody has answers


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file to lock, made if it is not there.

    Raises:
        StorageError: it can't be written.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        failed = error.strerror
    else:
        with file:
            yield file
        return
    raise StorageError(f"{path} can't be written ({failed}); nothing was sent, choose another folder")


def is_at(file: Any, path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    if os.name == "nt":
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def try_lock(file: Any, path: Path) -> bool:
    """Lock an open file, or say that somebody else has it.

    Raises:
        StorageError: the file system has no locks, so that nothing would keep two runs apart.
    """
    try:
        _lock(file)
    except OSError as error:
        if error.errno in HELD:
            return False
        failed = error.strerror
    else:
        return True
    raise StorageError(f"{path} can't be locked ({failed}); nothing was sent, choose a folder on a local disk")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` for the time of reading and writing a few small files.

    Raises:
        StorageError: somebody else does not end to, or the file system knows no locks.
    """
    end = time.monotonic() + LONGEST_HELD
    with opened(path) as file:
        while not try_lock(file, path):
            if time.monotonic() > end:
                raise StorageError(f"{path} is held by another program; nothing was sent, end that one")
            time.sleep(0.05)
        yield


def unique() -> str:
    """Part of a file name that no other process, thread or machine makes."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


if os.name == "nt":
    import msvcrt

    def _lock(file: Any) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _lock(file: Any) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
