"""An entry as the text of its file, of this format or the one before it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from ..states import State
from .entry import VERSION, Entry

OLDEST = 1  # format that is read

TYPES = {
    "int": int,
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str": str,
    "State": str,
    "bool": bool,
    "bool | None": (bool, type(None)),
    "tuple[str, ...]": list,
    "Mapping[str, Any]": dict,
}
COLUMNS: dict[str, Any] = {column.name: TYPES[str(column.type)] for column in fields(Entry)}
"""Name to what JSON may hold there; made once, since a journal has thousands of entries."""


def text_of(entry: Entry) -> bytes:
    return json.dumps(asdict(entry), indent=1, sort_keys=True).encode()


def parse(text: bytes) -> Entry | None:
    """An entry, or None for anything else."""
    row = _row(text)
    if row.get("v") not in range(OLDEST, VERSION + 1):
        return None
    if row.get("state") == "gone":  # of format 1
        row["state"] = State.MISSING.value
    values = {}
    for name, value in row.items():
        if name in COLUMNS:
            if not isinstance(value, COLUMNS[name]):
                return None
            values[name] = value
    for names in ("earlier", "rivals"):
        if names in values:
            values[names] = tuple(str(name) for name in values[names])
    try:
        if "state" in values:
            values["state"] = State(values["state"])
        return Entry(**values)
    except (TypeError, ValueError):
        return None


def _row(text: bytes) -> dict[str, Any]:
    """The object that stands in a file; an empty one for anything else."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def version_of(text: bytes) -> int:
    """The format an entry was written in; 0 if it is none."""
    version = _row(text).get("v")
    return version if isinstance(version, int) and not isinstance(version, bool) else 0
