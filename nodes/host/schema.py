"""What a node is to the editor."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.v0_0_2 import ComfyExtension, io

from .. import search

__all__ = ["ComfyExtension", "io", "schema"]


def schema(node_id: str, **fields: Any) -> io.Schema:
    """An ``io.Schema`` with its search words, without the fields that this ComfyUI does not know yet."""
    fields |= {"node_id": node_id, "search_aliases": search.words(node_id)}
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})
