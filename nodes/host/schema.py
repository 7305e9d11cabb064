"""What a node is to the editor."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import ComfyExtension, io

__all__ = ["ComfyExtension", "io", "schema"]

WORDS = Path(__file__).resolve().parents[2] / "locales" / "search.json"  # data, so that all sources stay ASCII


def schema(node_id: str, **fields: Any) -> io.Schema:
    """An ``io.Schema`` with its search words, without the fields that this ComfyUI does not know yet."""
    words = search_words()
    fields |= {"node_id": node_id, "search_aliases": [*words["every"], *words[node_id]]}
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


@cache
def search_words() -> dict[str, list[str]]:
    """Node id, or "every", to what people type who look for it, in any language."""
    words: dict[str, list[str]] = json.loads(WORDS.read_text("utf-8"))
    return words
