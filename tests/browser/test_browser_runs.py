"""Press Run in the editor and see what comes; give it back to the editor and see the graph again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyServer
from editor import Editor

NANO = "Wan FLF2V nano model"
ACCOUNT = "Wan FLF2V account and results"
RUN_PATIENCE = 180.0  # s; the bundled model on a busy machine
# A file of the output folder, dropped on the canvas as from a file manager.
DROP = """async ([name, folder]) => {
  const answer = await fetch(`/api/view?filename=${encodeURIComponent(name)}&subfolder=${folder}&type=output`)
  const content = await answer.blob(), carried = new DataTransfer()
  carried.items.add(new File([content], name, {type: content.type}))
  const canvas = app.canvas.canvas, box = canvas.getBoundingClientRect()
  const place = {clientX: box.left + 300, clientY: box.top + 300, bubbles: true, cancelable: true}
  canvas.dispatchEvent(new DragEvent('dragover', {...place, dataTransfer: carried}))
  canvas.dispatchEvent(new DragEvent('drop', {...place, dataTransfer: carried}))
}"""


def press_run(editor: Editor, server: ComfyServer) -> dict[str, Any]:
    """What the button's run left in the history."""
    before = set(server.get("/history"))
    editor.page.get_by_test_id("queue-button").click()
    deadline = time.monotonic() + RUN_PATIENCE
    while not (added := [row for key, row in server.get("/history").items() if key not in before]):
        assert time.monotonic() < deadline, editor.complaints()
        editor.page.wait_for_timeout(200)
    (run,) = added
    assert run["status"]["status_str"] == "success", json.dumps(run["status"])
    return run


@pytest.fixture(scope="module")
def made(page: Editor, server: ComfyServer) -> dict[str, Any]:
    """The run of the nano template, which stays open."""
    page.open_small(NANO)
    return press_run(page, server)


@pytest.mark.parametrize("nodes_2", [False, True], ids=["classic", "nodes 2.0"])
def test_the_video_stands_on_the_node(editor: Editor, made: dict[str, Any], nodes_2: bool) -> None:
    if nodes_2 and not editor.has_nodes_2:
        pytest.skip("this ComfyUI has no Nodes 2.0")
    if editor.has_nodes_2:
        editor.nodes_2(nodes_2)
    editor.fit()
    player = editor.page.locator("video").first
    player.wait_for()
    editor.page.wait_for_function(
        "video => video.readyState >= 2 && video.videoWidth === 64", arg=player.element_handle()
    )
    assert editor.complaints() == []
    assert editor.problems == []


@pytest.mark.parametrize("ending", [".mp4", ".png"])
def test_a_file_it_made_brings_the_graph_back(editor: Editor, made: dict[str, Any], ending: str) -> None:
    files = [file for output in made["outputs"].values() for file in output.get("images", [])]
    file = next(file for file in files if Path(file["filename"]).suffix == ending)
    editor.open_template(ACCOUNT)  # another graph stands there
    editor.page.evaluate(DROP, [file["filename"], file["subfolder"]])
    editor.page.wait_for_function("app.graph._nodes.some(node => node.type === 'WanFLF2VLocal')")
    local = next(node for node in editor.nodes() if node["type"] == "WanFLF2VLocal")
    assert local["widgets"]["prompt"].startswith("a white circle")
    assert (local["widgets"]["length"], local["widgets"]["steps"]) == (17, 20)
    linked = dict(local["inputs"])
    assert all(linked[name] for name in ("model", "clip", "vae", "first_image", "last_image"))


def test_an_account_is_asked_by_the_button(editor: Editor, server: ComfyServer) -> None:
    editor.open_template(ACCOUNT)
    run = press_run(editor, server)
    ((answer,),) = (output["text"] for output in run["outputs"].values())
    assert isinstance(json.loads(answer), list)
