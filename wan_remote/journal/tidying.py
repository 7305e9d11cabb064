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

    A job that ever had a clip is never forgotten: a drive that is away looks like a clip that was deleted, and the same
    inputs would be another bill. Where its clip is gone, and others lie in its folder, thumbnail and graph are dropped.
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
            if entry.file:
                if _is_gone(entry.places(output)):
                    for ending in (THUMBNAIL, GRAPH):
                        path.with_suffix(ending).unlink(missing_ok=True)
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


def _is_gone(places: list[Path]) -> bool:
    """Whether a clip is at none of the places where it may lie, one of which holds other files."""
    if any(path.is_file() for path in places):
        return False
    return any(path.parent.is_dir() and any(path.parent.iterdir()) for path in places)
