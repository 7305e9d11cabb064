"""The table that checks inside ComfyUI's interpreter put themselves in, and what several of them use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[[Any], "str | None"]
"""Takes the pack's ``nodes`` package; fails by raising, and may return a measured figure to show."""

CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def lib(nodes: Any, name: str) -> Any:
    return importlib.import_module(f"..wan_local.{name}", nodes.__package__)


def bundled(nodes: Any) -> Path:
    return nodes.host.pipeline_folders()[nodes.host.BUNDLED]


def apart(a: Any, b: Any) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def refusal(function: Any, *arguments: Any) -> str:
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return "(not refused)"
