"""The table that checks inside ComfyUI's interpreter put themselves in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], "str | None"]
"""Takes the pack's ``nodes`` package; fails by raising, and may return a measured figure to show."""

CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function
