"""Makes ``import wan_local`` and ``import training`` work in tests.

The pack root goes to the end of the path: in front, our folder ``nodes/`` would hide ComfyUI's ``nodes.py``.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
gc.disable()  # until everything is imported: nearly all that is made by then stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long start first: begun last, they would leave the other workers with nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """From now on with garbage collection, which many tests ask for; it need not look through what is imported."""
    gc.enable()
    gc.freeze()
