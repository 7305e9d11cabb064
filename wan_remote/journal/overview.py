"""All jobs of a journal for somebody who looks at them again and again: only what changed is read anew."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StorageError
from .entry import Entry
from .format import parse
from .tidying import GRAPH, THUMBNAIL

DAMAGED = ".damaged-"  # in the names of entries that were set aside


@dataclass(frozen=True, slots=True)
class Jobs:
    """What a look found.

    Attributes:
        entries: what is paid for or may be, and is not here, first; of these and of the others the newest first.
        unreadable: how many files hold an entry that can't be read.
        beside: names of the thumbnails and graphs that are kept.
    """

    entries: tuple[Entry, ...]
    unreadable: int
    beside: frozenset[str]


@dataclass(slots=True)
class Overview:
    """Of the journal in ``folder``. Writes nothing and waits for nobody."""

    folder: Path
    _read: dict[str, tuple[tuple[int, int], Entry | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Jobs:
        """The jobs as they stand now.

        Raises:
            StorageError: the folder is there and can't be read.
        """
        with self._lock:
            try:
                files = {row.name: row.stat() for row in os.scandir(self.folder)}
            except FileNotFoundError:
                files = {}
            except OSError as error:
                failed = error.strerror
            else:
                failed = ""
            if failed:
                raise StorageError(f"the journal {self.folder.name} can't be read ({failed}); correct its folder")
            seen = {name: (stat.st_mtime_ns, stat.st_size) for name, stat in files.items() if name.endswith(".json")}
            self._read = {name: self._entry(name, mark) for name, mark in seen.items()}
            found = [entry for _, entry in self._read.values()]
            unreadable = found.count(None) + sum(DAMAGED in name for name in files)
            entries = sorted((entry for entry in found if entry is not None), key=_order)
            beside = frozenset(name for name in files if name.endswith((GRAPH, THUMBNAIL)))
            return Jobs(entries=tuple(entries), unreadable=unreadable, beside=beside)

    def thumbnail(self, name: str) -> bytes | None:
        """A JPEG of the first image of a job, by its fingerprint; None if none is kept."""
        return self._beside(name, THUMBNAIL)

    def graph(self, name: str) -> str | None:
        """The graph that asked for a job, as JSON, by its fingerprint; None if none is kept."""
        data = self._beside(name, GRAPH)
        return None if data is None else data.decode("utf-8", "replace")

    def _beside(self, name: str, ending: str) -> bytes | None:
        if not name.isalnum():  # a fingerprint, and nothing that leads elsewhere
            return None
        try:
            return (self.folder / f"{name}{ending}").read_bytes()
        except OSError:
            return None

    def _entry(self, name: str, mark: tuple[int, int]) -> tuple[tuple[int, int], Entry | None]:
        before = self._read.get(name)
        if before is not None and before[0] == mark:
            return before
        try:
            return mark, parse((self.folder / name).read_bytes())
        except OSError:
            return mark, None


def _order(entry: Entry) -> tuple[bool, float]:
    return not entry.uncollected, -entry.intent_at
