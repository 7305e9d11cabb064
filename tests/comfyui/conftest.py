"""One ComfyUI server for all tests in this folder, or one line that says why there is none."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))  # the helpers beside this file; at the end, so that they shadow nothing

from comfy_server import PACK, ComfyServer, why_not  # noqa: E402

PICTURES = ("nano_first.png", "nano_last.png", "real_first.png", "real_last.png")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.comfy)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    for name in PICTURES:
        shutil.copy(PACK / "demo" / name, base / "input" / name)
    from nano_graph import write_single_files

    write_single_files(base / "models")
    with ComfyServer(base, ["--preview-method", "latent2rgb"]) as running:
        yield running


@pytest.fixture
def workflow() -> dict[str, Any]:
    """A copy of the bundled API workflow, to change at will."""
    return deepcopy(json.loads((PACK / "workflows" / "api" / "wan_flf2v_nano_model.json").read_text("utf-8")))
