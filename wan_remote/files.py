"""Small files that are for the user alone, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from .locks import unique

READ_OVER, BETWEEN = 2.0, 0.02  # seconds


def write_private(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Put a file of mode 0600 in the place of whatever is there.

    Args:
        path: of the file.
        data: all of it.
        flush: whether it has to be on the disk before this comes back.

    Raises:
        OSError: the disk is full or can't be written; what was there is there still.
    """
    temporary = path.with_suffix(f".tmp-{unique()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        replace_file(temporary, path)
        if flush:
            _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def replace_file(source: Path, path: Path) -> None:
    """Put ``source`` in the place of ``path``. Windows refuses that while anybody reads what is there, a list of jobs
    or a virus scanner, which is soon over: it is tried for two seconds.

    Raises:
        OSError: it can't be done.
    """
    end = time.monotonic() + READ_OVER
    while True:
        try:
            return os.replace(source, path)
        except PermissionError:
            if time.monotonic() > end:
                raise
        time.sleep(BETWEEN)


def move_aside(path: Path) -> None:
    """Keep what is at ``path`` under another name beside it, before something else takes its place: somebody may have
    put it there. Without a file there, nothing.

    Raises:
        OSError: it can't be done.
    """
    number = 1
    while (other := path.with_name(f"{path.stem}.before-{number}{path.suffix}")).exists():
        number += 1
    with contextlib.suppress(FileNotFoundError):
        replace_file(path, other)


def probe_folder(folder: Path) -> None:
    """Write into a folder and remove it again.

    Raises:
        OSError: that fails.
    """
    probe = folder / f".probe-{unique()}"
    probe.write_bytes(b"")
    probe.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
