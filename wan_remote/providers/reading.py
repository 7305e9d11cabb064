"""Values out of JSON that may hold anything."""

from __future__ import annotations

import math
from typing import Any

SWITCHES = {"true": True, "1": True, "false": False, "0": False}


def a_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def a_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def a_number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON knows no limit
        return None
    return number if math.isfinite(number) else None


def any_of(value: Any) -> bool | None:
    """Whether any of a list of switches, or the one that stands in its place, is on; None if there is none."""
    marks = {SWITCHES.get(str(row).lower()) for row in (value if isinstance(value, list) else [value])} - {None}
    return True in marks if marks else None


MORE = ("has_more", "hasMore", "next", "next_page", "next_page_token", "nextPageToken", "next_cursor", "cursor")
COUNTS = ("total", "total_count", "count")


def says_more(data: Any, rows: int) -> bool:
    """Whether a list without documented pages says, in one of the usual ways, that it is not all."""
    row = a_dict(data)
    return any(row.get(name) for name in MORE) or any((an_int(row.get(name)) or 0) > rows for name in COUNTS)


def an_int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
