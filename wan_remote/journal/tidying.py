"""What is forgotten of jobs, and when."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import StorageError
from ..locks import opened, try_lock
from .format import parse

KEPT = 90 * 86400.0  # seconds that entries of finished jobs are kept
THUMBNAIL, GRAPH = ".jpg", ".graph"  # endings of what lies beside an entry


def prune(folder: Path, output: Path, now: float) -> None:
    """Forget jobs that ended three months ago. Reads only what was not touched for as long.

    A job whose clip is still on disk, below ``output`` or in the folder that was noted down for it, is kept: the same
    inputs are that clip, not another bill. So is one of which no folder was noted: it may be another than ``output``.
    Nor is one forgotten that somebody works on.
    """
    old = now - KEPT
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, StorageError):
            if path.stat().st_mtime > old:
                continue
            entry = parse(path.read_bytes())
            if entry is None or entry.state.unfinished or not 0.0 < entry.ended_at < old:
                continue
            if entry.file and (not entry.output or any(path.is_file() for path in entry.places(output))):
                continue
            lock = path.with_suffix(".lock")
            with opened(lock) as file:
                if try_lock(file, lock) and parse(path.read_bytes()) == entry:
                    path.unlink()
                    if os.name != "nt":  # there, an open file can't be taken away
                        lock.unlink(missing_ok=True)
    for ending in (THUMBNAIL, GRAPH):
        for path in folder.glob(f"*{ending}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < old and not path.with_suffix(".json").exists():
                    path.unlink()
