"""One ComfyUI server for all tests in this folder, or one line that says why there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))  # the helpers beside this file; at the end, so that they shadow nothing

from comfy_server import PACK, ComfyServer, why_not  # noqa: E402

IMAGES = ("nano_first.png", "nano_middle.png", "nano_last.png", "real_first.png", "real_last.png")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.comfy)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``models`` folder with the bundled model as single files."""
    from nano_graph import write_single_files

    folder = tmp_path_factory.mktemp("models")
    write_single_files(folder)
    return folder


@pytest.fixture(scope="session")
def new_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a base directory for a server, with the images in it, the bundled model's at half their size."""
    if reason := why_not():
        pytest.skip(reason)
    from nano_graph import small_image

    def make(name: str, models: Path | None = None) -> Path:
        base = tmp_path_factory.mktemp(name)
        (base / "input").mkdir()
        for image in IMAGES:
            small_image(image).save(base / "input" / image)
        if models is not None:
            (base / "models").symlink_to(models, target_is_directory=True)
        return base

    return make


@pytest.fixture(scope="session")
def server(new_base: Callable[..., Path], models: Path) -> Iterator[ComfyServer]:
    base = new_base("comfyui", models)
    # No key that somebody has at home; and a Ray cluster of a test has to let this server in.
    environment = {"GMI_API_KEY": "", "WAVESPEED_API_KEY": "", "RAY_AUTH_MODE": "disabled"}
    with ComfyServer(base, ["--preview-method", "latent2rgb"], environment) as running:
        yield running


@pytest.fixture
def bundled() -> dict[str, Any]:
    """A copy of the bundled API workflow as it is saved."""
    return deepcopy(json.loads((PACK / "workflows" / "api" / "wan_flf2v_nano_model.json").read_text("utf-8")))


@pytest.fixture
def workflow(bundled: dict[str, Any]) -> dict[str, Any]:
    """The same at a quarter of the size and half the length, to change at will."""
    (local,) = (row for row in bundled.values() if row["class_type"] == "WanFLF2VLocal")
    local["inputs"].update(width=64, height=64, length=17, fps=8.0)
    return bundled
