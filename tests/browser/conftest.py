"""One ComfyUI and one Chromium for all tests in this folder, or one line that says why there are none."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "comfyui", HERE.parents[1]):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # the helpers there; at the end, so that they shadow nothing

from comfy_server import PACK, ComfyServer  # noqa: E402
from editor import FLAGS, Editor, chromium, missing  # noqa: E402

from tests.wan_remote.stand_in.client import StandIn  # noqa: E402

FOLDERS = {
    "clip_name": "text_encoders", "vae_name": "vae", "model_name": "diffusion_models", "lora_name": "loras",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def clouds() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="session")
def server(clouds: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI whose disk has every file that a template names, the big ones empty, and stand-ins for the clouds."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"Comfy.TutorialCompleted": true}')  # else the dialog of templates opens by itself
    for path in (PACK / "demo").glob("*.png"):
        shutil.copy(path, base / "input" / path.name)
    for name, picture in (("first", "real_first"), ("middle", "nano_middle"), ("last", "real_last")):
        shutil.copy(PACK / "demo" / f"{picture}.png", base / "input" / f"{name}.png")
    for path in (PACK / "workflows" / "api").glob("*.json"):
        for row in json.loads(path.read_text("utf-8")).values():
            give_files(base / "models", row["class_type"], row["inputs"])
    with ComfyServer(base, environment=clouds.environment) as running:
        yield running


def give_files(models: Path, kind: str, inputs: dict[str, Any]) -> None:
    """The files that one node names, where its list looks for them."""
    for field, value in inputs.items():
        if not isinstance(value, str) or "bundled" in value:
            continue
        if field == "folder":
            (models / "wan_flf2v").mkdir(parents=True, exist_ok=True)
            if not (models / "wan_flf2v" / value).exists():
                (models / "wan_flf2v" / value).symlink_to(PACK / "weights" / "nano", target_is_directory=True)
        elif field in FOLDERS:
            folder = models / ("clip_vision" if kind == "CLIPVisionLoader" else FOLDERS[field])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / value).touch()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all files: Playwright can't be started twice in a process."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def page(server: ComfyServer, browser: Any) -> Editor:
    """The one page of all tests: loading it takes longer than most of them."""
    opened = Editor(browser.new_page(viewport={"width": 1600, "height": 1000}), f"http://127.0.0.1:{server.port}/")
    opened.start()
    return opened


@pytest.fixture
def editor(page: Editor) -> Editor:
    """The page without what an earlier test left before the graph."""
    page.problems.clear()
    page.close_dialogs()
    return page


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def canvas(request: pytest.FixtureRequest, editor: Editor) -> bool:
    """What to give ``nodes_2``: both canvases, where the page has two."""
    if request.param and not editor.has_nodes_2:
        pytest.skip("this page has no Nodes 2.0")
    return bool(request.param)
