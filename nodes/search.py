"""What people type who look for a node, in any language. The words are data, so that all sources stay ASCII."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "locales" / "search.json"


@cache
def table() -> dict[str, list[str]]:
    """Node id, or "every", to words."""
    words: dict[str, list[str]] = json.loads(FILE.read_text("utf-8"))
    return words


def words(node_id: str) -> list[str]:
    return [*table()["every"], *table()[node_id]]
