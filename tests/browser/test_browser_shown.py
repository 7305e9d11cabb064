"""What our nodes show beside their widgets: estimates, ends, places of keyframes, two clips, the example images."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from comfy_server import ComfyServer
from editor import Editor

SECOND = 1_000
RUN_PATIENCE = 180 * SECOND
SEEDS = count(1)
SLOWEST = 200  # ms that a task of ours may hold the page up
NODE = "name => app.graph._nodes.find(node => node.type === name)"
WIDGET = f"([kind, name]) => ({NODE})(kind).widgets.find(widget => widget.name === name).value"
PUT = f"([kind, name, value]) => {{ ({NODE})(kind).widgets.find(widget => widget.name === name).value = value }}"
RAN = "kind => app.nodeOutputs[app.graph._nodes.find(node => node.type === kind)?.id]"
# Two clips of unlike lengths that stand still, in the compare node.
TWO_CLIPS = """() => {
  app.graph.clear()
  const drop = (type, x, y) => { const n = LiteGraph.createNode(type); app.graph.add(n); n.pos = [x, y]; return n }
  const put = (node, name, value) => { node.widgets.find(widget => widget.name === name).value = value }
  const compare = drop('WanFLF2VCompare', 1100, 100)
  for (const [at, name, frames] of [[0, 'nano_first.png', 5], [1, 'nano_last.png', 9]]) {
    const y = 100 + 450 * at, load = drop('LoadImage', 100, y)
    const many = drop('RepeatImageBatch', 450, y), video = drop('CreateVideo', 780, y)
    put(load, 'image', name); put(many, 'amount', frames); put(video, 'fps', 8)
    load.connect(0, many, 0); many.connect(0, video, 0); video.connect(0, compare, at)
  }
}"""
GIVE_STEPS = """() => {
  const node = app.graph._nodes.find(each => each.type === 'WanFLF2VLocal')
  const other = LiteGraph.createNode('PrimitiveNode')
  app.graph.add(other)
  other.connect(0, node, node.inputs.findIndex(input => input.name === 'steps'))
}"""
INTO_SUBGRAPH = """() => {
  const node = app.graph._nodes.find(each => each.type === 'WanFLF2VLocal')
  app.graph.convertToSubgraph(new Set([node]))
}"""
LOOKS_AND_FRAMES = """async () => {
  const real = window.requestAnimationFrame
  let looks = 0, frames = 0, on = true
  window.requestAnimationFrame = work => { looks += String(work).includes('follow()'); return real(work) }
  const count = () => { frames++; if (on) real(count) }
  real(count)
  await new Promise(done => setTimeout(done, 1000))
  on = false
  window.requestAnimationFrame = real
  return [looks, frames]
}"""
LOOK_ANEW = "import('/extensions/ComfyUI-WanFLF2V/lib/watch.js').then(watch => watch.again())"
MOMENTS = "() => [...document.querySelectorAll('.wan-flf2v-clips video')].map(video => video.currentTime)"


def run(editor: Editor, kind: str) -> None:
    """Press Run and wait until a node of that kind shows what it made."""
    if kind == "WanFLF2VLocal":  # of a node that is not made anew the host sends nothing
        editor.page.evaluate(PUT, [kind, "seed", next(SEEDS)])
    editor.page.evaluate("app.nodeOutputs = {}")
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function(RAN, arg=kind, timeout=RUN_PATIENCE)


def estimate(editor: Editor) -> Any:
    return editor.page.get_by_role("status", name="What this run will take")


def value(editor: Editor, kind: str, name: str) -> Any:
    return editor.page.evaluate(WIDGET, [kind, name])


def test_the_estimate_follows_the_widgets_and_knows_the_time_after_a_run(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    lines = estimate(editor)
    lines.get_by_text("1.06 s of video (17 frames at 16 fps) · 80 tokens").wait_for()
    lines.get_by_text("no GPU is used").or_(lines.get_by_text("GB (")).wait_for()
    if "unknown yet" in lines.inner_text():  # no test before has run this model
        editor.page.evaluate(PUT, ["WanFLF2VLocal", "length", 9])
        lines.get_by_text("0.56 s of video (9 frames at 16 fps) · 48 tokens").wait_for()
    run(editor, "WanFLF2VLocal")
    lines.get_by_text("as measured here before").wait_for()
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "length", 10])
    lines.get_by_text("not 4n+1; use 9 or 13").wait_for()
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "length", 9])
    lines.get_by_text("48 tokens").wait_for()


def test_no_time_is_told_where_another_node_gives_the_steps(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    editor.page.evaluate(GIVE_STEPS)
    estimate(editor).get_by_text("time: depends on steps and guidance from other nodes").wait_for()


def test_a_size_from_a_button_is_one_step_for_undo(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    before = [value(editor, "WanFLF2VLocal", name) for name in ("width", "height")]
    editor.page.get_by_role("button", name="480p").click()
    editor.page.wait_for_function(f"() => ({WIDGET})(['WanFLF2VLocal', 'width']) > 400")
    editor.page.wait_for_timeout(SECOND)  # until the page has noticed
    editor.command("Comfy.Undo")
    editor.page.wait_for_function(
        f"before => ['width', 'height'].every((name, at) => ({WIDGET})(['WanFLF2VLocal', name]) === before[at])",
        arg=before,
    )


def test_what_is_watched_in_a_subgraph_goes_with_it(editor: Editor) -> None:
    """Each undo has the page make all of a graph anew, and tells no node in a subgraph that it is gone."""
    editor.open_small("Wan FLF2V nano model")
    editor.page.evaluate(INTO_SUBGRAPH)
    for _ in range(3):
        editor.page.evaluate("app.loadGraphData(app.graph.serialize())")
    asked: list[str] = []
    editor.page.wait_for_timeout(3 * SECOND)
    editor.page.on("request", lambda request: asked.append(request.url) if "/estimate?" in request.url else None)
    editor.page.evaluate(LOOK_ANEW)
    editor.page.wait_for_timeout(2 * SECOND)
    assert len(asked) == 1


def test_saved_graphs_have_no_entry_of_what_is_only_shown(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    saved = "app.graph.serialize().nodes.find(node => node.type === 'WanFLF2VLocal').widgets_values"
    named = f"({NODE})('WanFLF2VLocal').widgets.filter(widget => !widget.name.startsWith('wan_flf2v'))"
    assert editor.page.evaluate(f"{saved}.length") == editor.page.evaluate(f"{named}.length")


def test_ends_are_compared_by_a_slider(editor: Editor, canvas: bool) -> None:
    editor.open_small("Wan FLF2V nano model")
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "steps", 2])
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "length", 9])
    editor.nodes_2(canvas)
    run(editor, "WanFLF2VLocal")
    fold = editor.page.locator(".wan-flf2v summary")
    fold.focus()
    editor.page.keyboard.press("Enter")
    slider = editor.page.get_by_role("slider", name="first frame: how much of the image is shown")
    slider.focus()
    editor.page.keyboard.press("Home")
    picture = editor.page.locator(".wan-flf2v-wipe img + img").first
    assert picture.evaluate("image => image.style.clipPath") == "inset(0px 100% 0px 0px)"
    editor.page.keyboard.press("ArrowRight")
    assert picture.evaluate("image => image.style.clipPath") == "inset(0px 99% 0px 0px)"
    editor.wipes_of("64x64")
    shown = editor.page.locator(".wan-flf2v details")
    for words in ("first frame", "last frame", "dB PSNR", "colour difference", "jitter", "largest jump"):
        assert words in shown.inner_text()
    editor.fit()
    boxes = {box.kind: box for box in editor.boxes(canvas)}
    place, scale = shown.bounding_box(), editor.page.evaluate("app.canvas.ds.scale")
    local = boxes["WanFLF2VLocal"]
    assert place["height"] / scale < local.bottom - local.top, "hangs out of its node"
    assert editor.problems == []


def test_arrow_keys_move_a_keyframe(editor: Editor, canvas: bool) -> None:
    editor.open_template("Wan FLF2V nano keyframes")
    editor.nodes_2(canvas)
    before = value(editor, "WanFLF2VKeyframe", "frame")
    slider = editor.page.get_by_role("slider", name="this image: frame")
    slider.focus()
    editor.page.keyboard.press("ArrowRight")
    assert value(editor, "WanFLF2VKeyframe", "frame") == before + 4
    assert slider.evaluate("slider => slider === document.activeElement")
    editor.page.keyboard.press("End")
    last = value(editor, "WanFLF2VLocal", "length") - 1
    assert value(editor, "WanFLF2VKeyframe", "frame") == last
    other = editor.page.get_by_role("slider", name=f"frame {last} of {last + 1}").nth(1)
    other.wait_for()  # the node that makes the clip shows it as well
    editor.page.evaluate(PUT, ["WanFLF2VKeyframe", "frame", -1])
    editor.page.wait_for_function("slider => slider.value === slider.max", arg=other.element_handle())
    assert editor.problems == []


def test_the_mouse_drags_a_keyframe_and_not_its_node(editor: Editor, canvas: bool) -> None:
    editor.open_template("Wan FLF2V nano keyframes")
    editor.nodes_2(canvas)
    editor.fit()
    places = "() => app.graph._nodes.map(node => [node.id, ...node.pos].join()).sort()"
    before, frame = editor.page.evaluate(places), value(editor, "WanFLF2VKeyframe", "frame")
    last = value(editor, "WanFLF2VLocal", "length") - 1
    box = editor.page.get_by_role("slider", name="this image: frame").bounding_box()
    middle = box["y"] + box["height"] / 2
    editor.page.mouse.move(box["x"] + box["width"] * frame / last, middle)
    editor.page.mouse.down()
    editor.page.mouse.move(box["x"] + box["width"], middle, steps=5)
    editor.page.mouse.up()
    assert value(editor, "WanFLF2VKeyframe", "frame") == last
    assert editor.page.evaluate(places) == before
    assert editor.problems == []


def test_two_clips_play_in_step(editor: Editor, canvas: bool) -> None:
    editor.nodes_2(False)
    editor.page.evaluate(TWO_CLIPS)
    editor.nodes_2(canvas)
    run(editor, "WanFLF2VCompare")
    editor.page.get_by_text("frame 0 of 9, 0.00 s").wait_for()
    editor.page.wait_for_function(
        "() => [...document.querySelectorAll('.wan-flf2v-clips video')].every(video => video.readyState >= 2)"
    )
    forth = editor.page.get_by_role("button", name="One frame forward")
    forth.focus()
    for _ in range(3):
        editor.page.keyboard.press("Enter")
    editor.page.get_by_text("frame 3 of 9, 0.38 s").wait_for()
    assert editor.page.evaluate(MOMENTS) == pytest.approx([3.5 / 8, 3.5 / 8])
    seek = editor.page.get_by_role("slider", name="Frame")
    seek.focus()
    editor.page.keyboard.press("End")
    assert editor.page.evaluate(MOMENTS) == pytest.approx([4.5 / 8, 8.5 / 8]), "the shorter one waits at its end"
    play = editor.page.get_by_role("button", name="play", exact=True)
    play.focus()
    editor.page.keyboard.press("Enter")
    pause = editor.page.get_by_role("button", name="pause", exact=True)
    pause.wait_for()
    editor.page.wait_for_function("() => { const [, b] = (" + MOMENTS + ")(); return b > 0.2 && b < 0.6 }")
    pause.focus()
    editor.page.keyboard.press("Enter")
    first, second = editor.page.evaluate(MOMENTS)
    assert first == pytest.approx(second, abs=0.01)
    play.focus()
    editor.page.keyboard.press("Enter")
    editor.page.wait_for_timeout(4 * SECOND)  # three times from the start
    looks, frames = editor.page.evaluate(LOOKS_AND_FRAMES)
    pause.focus()
    editor.page.keyboard.press("Enter")
    assert looks <= frames + 2, "one more look a frame each time the clip begins anew"
    assert editor.problems == []


def test_a_size_keeps_the_aspect_of_the_first_image(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    editor.page.get_by_role("button", name="480p").click()
    editor.page.wait_for_function(f"({WIDGET})(['WanFLF2VLocal', 'width']) === 624")
    assert value(editor, "WanFLF2VLocal", "height") == 624
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "width", 832])
    editor.page.get_by_role("button", name="Swap width and height").click()
    assert (value(editor, "WanFLF2VLocal", "width"), value(editor, "WanFLF2VLocal", "height")) == (624, 832)


def test_a_template_without_its_images_brings_them(editor: Editor, server: ComfyServer) -> None:
    names = ("nano_first.png", "nano_last.png")
    for name in names:
        (server.base / "input" / name).unlink()
    editor.page.evaluate("app.refreshComboInNodes()")
    editor.open_small("Wan FLF2V nano model")
    editor.nodes_2(False)
    bring = """() => app.graph._nodes.filter(node => node.type === 'LoadImage')
      .map(node => node.widgets.find(widget => widget.name === 'wan_flf2v_examples'))"""
    assert editor.page.evaluate(f"({bring})().map(button => button.label)") == ["use the example images"] * 2
    editor.page.evaluate(f"({bring})()[0].callback()")
    editor.page.wait_for_function(f"({bring})().every(button => !button)")
    assert all((server.base / "input" / name).is_file() for name in names)
    offered = "app.graph._nodes.find(node => node.type === 'LoadImage').widgets[0].options.values"
    assert set(names) <= set(editor.page.evaluate(offered))
    run(editor, "WanFLF2VLocal")
    assert editor.complaints() == []
    assert editor.problems == []


def test_our_modules_leave_the_page_quick_while_a_run_goes_on(editor: Editor) -> None:
    editor.open_small("Wan FLF2V nano model")
    session = editor.page.context.new_cdp_session(editor.page)
    session.send("Profiler.enable")
    session.send("Profiler.start")
    editor.page.evaluate(PUT, ["WanFLF2VLocal", "length", 9])
    run(editor, "WanFLF2VLocal")
    profile = session.send("Profiler.stop")["profile"]
    session.detach()
    assert longest(profile) < SLOWEST


def longest(profile: dict[str, Any]) -> float:
    """Milliseconds of the longest stretch of samples that all have one of our modules on the stack."""
    parents = {child: node["id"] for node in profile["nodes"] for child in node.get("children", ())}
    ours = {node["id"] for node in profile["nodes"] if "/ComfyUI-WanFLF2V/" in node["callFrame"]["url"]}
    assert ours, "none of our modules has run"

    def inside(node: int | None) -> bool:
        while node is not None and node not in ours:
            node = parents.get(node)
        return node is not None

    found = stretch = 0.0
    for node, passed in zip(profile["samples"], profile["timeDeltas"][1:], strict=False):
        stretch = stretch + passed / 1000 if inside(node) else 0.0
        found = max(found, stretch)
    print(f"longest: {found:.0f} ms")
    return found
