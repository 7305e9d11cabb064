"""Which entries are of which inputs, whatever they are named: each file is read once a process, since a journal of a
year has thousands. What inputs an entry is of never changes, so that nothing here can be out of date and cost money.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from .entry import Entry, same_inputs
from .format import parse

_Mark = tuple[int, int]
_seen: dict[Path, dict[str, tuple[_Mark, int | None]]] = {}  # folder to file to a hash of its inputs
_looking = threading.Lock()


def of_inputs(folder: Path, wanted: Entry) -> list[Entry]:
    """All entries that were asked for the same as ``wanted``, newest first."""
    key, found = _key(wanted), []
    for name in _names(folder, key):
        entry = _read(folder / name)
        if entry is not None and same_inputs(entry, wanted):
            found.append(entry)
    return sorted(found, key=lambda entry: -entry.intent_at)


def _names(folder: Path, key: int | None) -> Iterator[str]:
    """Files that may hold an entry of these inputs."""
    with _looking:
        before, seen = _seen.get(folder, {}), {}
        for row in os.scandir(folder) if folder.is_dir() else ():
            if row.name.endswith(".json"):
                try:
                    stat = row.stat()
                except OSError:
                    continue
                mark = (stat.st_mtime_ns, stat.st_size)
                known = before.get(row.name)
                seen[row.name] = known if known is not None and known[0] == mark else (mark, _key_of(folder / row.name))
        _seen[folder] = seen
    return (name for name, (_, found) in seen.items() if found is None or found == key)


def _key_of(path: Path) -> int | None:
    entry = _read(path)
    return None if entry is None else _key(entry)


def _key(entry: Entry) -> int | None:
    """Equal for equal inputs; None where they are not such as can be told by that."""
    asked = {**entry.parameters, "fit": ""}
    try:
        return hash((entry.provider, entry.model, frozenset(asked.items()), entry.first, entry.last, entry.take))
    except TypeError:
        return None


def _read(path: Path) -> Entry | None:
    try:
        return parse(path.read_bytes())
    except OSError:
        return None
