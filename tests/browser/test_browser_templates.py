"""Every template clicked open in the dialog, on the classic canvas and in Nodes 2.0: whole, in order, legible."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from comfy_server import PACK, ComfyServer
from editor import Editor

TITLES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
BLUEPRINT = next((PACK / "subgraphs").glob("*.json")).stem
ASLEEP = (2, 4)  # muted, bypassed
FIRST_TRIED = "Wan FLF2V nano model"
READABLE = 0.6  # a scale; below 8/14 the classic canvas draws no text


@pytest.mark.parametrize("title", TITLES)
def test_a_template_opens_by_a_click(editor: Editor, title: str) -> None:
    name = re.sub(r"[^a-z0-9]+", "_", title.lower())
    queue = json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    editor.nodes_2(False)  # frontend 1.58 gives nodes that are opened in Nodes 2.0 the heights of those before
    editor.open_template(title)
    nodes = editor.nodes()
    assert [node["type"] for node in nodes if not node["known"]] == []
    assert [node["title"] for node in nodes if node["failed"]] == []
    assert editor.complaints() == []
    for node in nodes:
        if node["type"] != "MarkdownNote" and node["mode"] not in ASLEEP:
            check_inputs(node, queue[str(node["id"])]["inputs"])
    for nodes_2 in editor.canvases:
        editor.nodes_2(nodes_2)
        editor.fit()
        boxes, groups = editor.boxes(nodes_2), editor.groups()
        assert len(boxes) == len(nodes)
        assert [(one.kind, other.kind) for one, other in combinations(boxes, 2) if one.overlaps(other)] == []
        assert groups
        outside = [box.kind for box in boxes if not any(box.within(*group) for group in groups)]
        assert set(outside) <= {"MarkdownNote"}, "higher than their groups"
    assert editor.problems == []


def test_the_template_that_is_tried_first_opens_with_its_text_readable(editor: Editor) -> None:
    editor.nodes_2(False)
    editor.open_template(FIRST_TRIED)
    editor.page.wait_for_function("least => app.canvas.ds.scale >= least", arg=READABLE)
    editor.fit()
    assert editor.page.evaluate("app.canvas.ds.scale") >= READABLE


def check_inputs(node: dict[str, Any], inputs: dict[str, Any]) -> None:
    """The page holds what the queue's form of the graph says."""
    wired = {name for name, link in node["inputs"] if link}
    assert wired == {name for name, value in inputs.items() if isinstance(value, list)}, node["title"]
    typed = {name: value for name, value in inputs.items() if not isinstance(value, list)}
    shown = {name: node["widgets"].get(name) for name in typed if name in node["widgets"]}
    assert shown == {name: typed[name] for name in shown}, node["title"]
    assert set(typed) - set(shown) <= {"codec"}, node["title"]  # which later versions of SaveVideo hide


def test_every_template_shows_its_thumbnail(editor: Editor) -> None:
    editor.browse_templates()
    for title in TITLES:
        card = editor.page.get_by_test_id(f"template-workflow-{title}")
        card.scroll_into_view_if_needed()
        picture = card.locator("img").first
        picture.wait_for()
        editor.page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
        heading = card.locator("h3")
        assert heading.inner_text() == title
        assert heading.evaluate(
            "line => line.scrollHeight <= line.clientHeight && line.scrollWidth <= line.clientWidth"
        )


def test_the_blueprint_becomes_a_node_with_what_a_person_sets(editor: Editor, server: ComfyServer) -> None:
    if not server.get("/global_subgraphs"):
        pytest.skip("this ComfyUI knows no blueprints of packs")
    editor.add_node(BLUEPRINT)
    found = editor.page.evaluate(
        """() => {
          const [node] = app.graph._nodes, inside = node.subgraph.nodes.map(inner => inner.type)
          return {widgets: node.widgets.map(widget => widget.name), outputs: node.outputs.map(output => output.type),
                  inside, known: inside.every(kind => kind in LiteGraph.registered_node_types)}
        }"""
    )
    assert found["known"]
    assert "WanFLF2VSampler" in found["inside"]
    assert found["outputs"] == ["IMAGE", "VIDEO"]
    assert {"prompt", "four_steps", "seed"} <= set(found["widgets"])
