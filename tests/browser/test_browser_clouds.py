"""Cloud nodes as a person uses them: dropped, run, stopped, run again; and those that are run alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from editor import Editor

from tests.wan_remote.stand_in.client import StandIn

PATIENCE = 60.0
IMAGES = ("nano_first.png", "nano_last.png")
# A graph of freshly dropped nodes: the id of the cloud node.
FRESH = """([kind, first, last]) => {
  app.graph.clear()
  const drop = (type, x, y) => { const n = LiteGraph.createNode(type); app.graph.add(n); n.pos = [x, y]; return n }
  const put = (node, name, value) => { node.widgets.find(widget => widget.name === name).value = value }
  const a = drop('LoadImage', 100, 100), b = drop('LoadImage', 100, 500), made = drop(kind, 500, 100)
  const save = drop('SaveVideo', 1000, 100), slot = (node, name) => node.inputs.findIndex(input => input.name === name)
  put(a, 'image', first); put(b, 'image', last); put(made, 'prompt', 'a walk')
  a.connect(0, made, slot(made, 'first_image')); b.connect(0, made, slot(made, 'last_image'))
  made.connect(1, save, slot(save, 'video'))
  return made.id
}"""
ALONE = """([kind, values]) => {
  app.graph.clear()
  const node = LiteGraph.createNode(kind); app.graph.add(node); node.pos = [300, 200]
  for (const [name, value] of Object.entries(values)) node.widgets.find(w => w.name === name).value = value
  return node.id
}"""
SET = """([id, name, value]) => {
  const widget = app.graph.getNodeById(id).widgets.find(widget => widget.name === name)
  widget.value = value
}"""
# Sets ``runEnded`` a moment after the page has heard that the next run has ended: some then take the line away.
LISTEN = """() => {
  window.runEnded = false
  for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
    comfyAPI.api.api.addEventListener(end, () => setTimeout(() => { runEnded = true }, 300), {once: true})
}"""
HEIGHT = "id => app.graph.getNodeById(id).size[1]"
WIDTH = "id => app.graph.getNodeById(id).size[0]"
UNCOVERED = "[...document.querySelectorAll('.wan-flf2v-wipe img + img')].map(image => image.style.clipPath)"
LINES = "id => (app.graph.getNodeById(id).widgets ?? []).filter(w => w.type === 'progressText').map(w => w.value)"


@pytest.fixture
def cloud(clouds: StandIn) -> StandIn:
    clouds.reset()
    clouds.settings(frames=9)
    return clouds


def wait(editor: Editor, until: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := until()):
        assert time.monotonic() < deadline, "nothing came of it"
        editor.page.wait_for_timeout(100)
    return found


def queue(editor: Editor) -> None:
    editor.page.evaluate(LISTEN)
    editor.command("Comfy.QueuePrompt")


def ended(editor: Editor) -> None:
    editor.page.wait_for_function("runEnded")


def line(editor: Editor, node: int) -> str:
    """What stands on a node below its widgets, on the classic canvas."""
    return "".join(editor.page.evaluate(LINES, node))


@pytest.mark.parametrize("kind", ["WanFLF2VGMI", "WanFLF2VWaveSpeed"])
def test_run_stop_run_of_a_freshly_dropped_node_is_one_bill(editor: Editor, cloud: StandIn, kind: str) -> None:
    cloud.plan("gmi", "queued", "success")
    cloud.plan("wavespeed", "processing", "completed")
    editor.nodes_2(False)
    node = editor.page.evaluate(FRESH, [kind, *IMAGES])
    queue(editor)
    wait(editor, cloud.accepted)
    editor.command("Comfy.Interrupt")
    ended(editor)
    wait(editor, lambda: line(editor, node).startswith("stopped"))
    cloud.always("gmi", "success")
    cloud.always("wavespeed", "completed")
    queue(editor)
    job = cloud.jobs()[0]["id"]
    ended(editor)
    wait(editor, lambda: all(words in line(editor, node) for words in ("frames of", job)))
    assert cloud.accepted() == 1
    assert cloud.posts() == 1


def test_nodes_that_run_alone_show_their_answer(editor: Editor, cloud: StandIn, canvas: bool) -> None:
    values = {"provider": "wavespeed", "what": "balance"}
    node = editor.page.evaluate(ALONE, ["WanFLF2VAccount", values])
    editor.nodes_2(canvas)
    queue(editor)
    ended(editor)
    if canvas:
        shown = editor.page.locator(f"[data-node-id='{node}']")
        wait(editor, lambda: "12.5" in shown.inner_text())
        assert shown.inner_text().count("12.5") == 1
    else:
        wait(editor, lambda: "12.5" in line(editor, node))
    assert editor.complaints() == []


def test_the_ends_of_a_clip_unfold_on_its_node(editor: Editor, cloud: StandIn, canvas: bool) -> None:
    cloud.always("gmi", "success")
    node = editor.page.evaluate(FRESH, ["WanFLF2VGMI", *IMAGES])
    editor.page.evaluate(SET, [node, "seed", 2100 + canvas])  # none that was made before
    editor.nodes_2(canvas)
    wide = editor.page.evaluate(WIDTH, node)
    queue(editor)
    ended(editor)
    fold = editor.page.locator(".wan-flf2v details")
    summary = fold.locator("summary")
    summary.get_by_text("Ends of the clip").wait_for()
    closed = editor.page.evaluate(HEIGHT, node)
    summary.focus()
    editor.page.keyboard.press("Enter")
    for words in ("first frame", "last frame", "dB PSNR", "colour difference", "jitter", "largest jump"):
        fold.get_by_text(words).first.wait_for()
    editor.wipes_of("128x72")  # the clip's size
    slider = fold.get_by_role("slider", name="last frame: how much of the image is shown")
    slider.focus()
    editor.page.keyboard.press("End")
    assert editor.page.evaluate(UNCOVERED) == ["inset(0px 50% 0px 0px)", "inset(0px 0% 0px 0px)"]
    if not canvas:
        editor.page.wait_for_function(f"before => ({HEIGHT})({node}) > before", arg=closed)  # nothing hangs out
    assert editor.page.evaluate(WIDTH, node) == wide  # nor over the next node
    assert cloud.posts() == 1
    assert editor.problems == []
