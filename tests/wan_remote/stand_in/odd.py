"""Ways in which a list of requests may differ from what was sent, each seen somewhere or easily thought of."""

from __future__ import annotations

import html
import time
import unicodedata
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def _payload(**change: Callable[[Any], Any]) -> Callable[[Row], Row]:
    def edit(row: Row) -> Row:
        payload = dict(row.get("payload") or {})
        payload |= {name: make(payload[name]) for name, make in change.items() if name in payload}
        return {**row, "payload": payload} if "payload" in row else row

    return edit


def _moment(row: Row, numbers: Callable[[float], Any], texts: Callable[[str], Any]) -> Row:
    created = row["created_at"]
    return {**row, "created_at": texts(created) if isinstance(created, str) else numbers(created)}


def _elsewhere(text: str) -> str:
    """The local time of UTC+8, which does not say so."""
    told = time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.mktime(told) + 8 * 3600))


ROWS: dict[str, Callable[[Row], Row]] = {
    "stripped": _payload(prompt=str.strip),
    "rewritten": _payload(prompt=lambda text: f"In golden light, {text}, 4k, cinematic"),
    "cut": _payload(prompt=lambda text: text[:60]),
    "escaped": _payload(prompt=html.escape),
    "composed": _payload(prompt=lambda text: unicodedata.normalize("NFC", text)),
    "no seed": _payload(seed=lambda seed: -1),
    "no inputs": lambda row: {**row, "payload": {}} if "payload" in row else row,
    "small letters": lambda row: {**row, "model": row["model"].lower()},
    "variant": lambda row: {**row, "model": row["model"] + "/720p"},
    "microseconds": lambda row: _moment(row, lambda at: int(at * 1e6), lambda at: at),
    "no zone": lambda row: _moment(row, lambda at: f"{at}s", _elsewhere),
    "late": lambda row: _moment(row, lambda at: at + 200, lambda at: at),
    "no times": lambda row: {name: value for name, value in row.items() if name != "created_at"},
    "words": lambda row: {**row, "created_at": "soon"},
    "no ids": lambda row: {name: value for name, value in row.items() if name not in ("id", "request_id")},
}
HIDING = ("empty", "paged", "no ids")  # what was made can't be seen
PAGES = ("empty", "paged", "backwards")
STYLES = (*ROWS, *PAGES)


def page(style: str, rows: list[Row]) -> tuple[list[Row], dict[str, Any]]:
    """Rows as a list of that style has them, and what stands beside them."""
    if style == "empty":
        return [], {}
    if style == "paged":
        old = [_moment(row, lambda at: at - 90000, lambda at: "2026-01-01T00:00:00Z") for row in rows]
        names = ("id", "request_id")
        old = [{**row, **{name: f"{row[name]}-old" for name in names if name in row}} for row in old]
        return old[:1], {"has_more": True, "total": 57}
    if style == "backwards":
        return rows[::-1], {}
    return [ROWS[style](row) for row in rows] if style else rows, {}
