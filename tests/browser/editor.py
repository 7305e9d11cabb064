"""ComfyUI's editor in a real Chromium: what a person does with it, and what they then see."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_server import why_not

NAME = "ComfyUI-WanFLF2V"  # the pack, as the dialog of templates lists it
LOADING = 180_000  # ms; the page is heavy, the machine may be busy
PATIENCE = 45_000  # ms, for anything else: what hangs hangs in every test after it
AGAIN = 10_000  # ms, after which a person would press again
CLOSING = 1_500  # ms that a dialog takes to fade away
BESIDE = (20, 500)  # left of any dialog
OUTDATED = "is outdated. Backend requires"
SETTLE = 200  # ms; a view that has not moved for so long has arrived
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Without a GPU, what fades and slides behind a dialog takes two thirds of the time of a click.
STILL_STYLE = """document.addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style')
  style.textContent = '*, *::before, *::after { animation: none !important; transition: none !important }'
  document.head.append(style)
})"""
READY = "window.app?.graph && app.extensionManager?.setting && document.querySelector('.side-tool-bar-container')"
# [left, top, right, bottom] of every node with its title, in units of the graph.
CLASSIC_BOXES = """() => app.graph._nodes.map(node => {
  const [x, y, w, h] = node.getBounding()
  return [node.id, node.type, x, y, x + w, y + h]
})"""
VUE_BOXES = """() => [...document.querySelectorAll('[data-node-id]')].map(element => {
  const box = element.getBoundingClientRect(), {scale, offset: [x, y]} = app.canvas.ds
  const node = app.graph.getNodeById(element.dataset.nodeId)
  return [node.id, node.type, box.left / scale - x, box.top / scale - y, box.right / scale - x, box.bottom / scale - y]
})"""
SMALL = """() => {
  const small = {width: 64, height: 64, length: 17}
  const {widgets} = app.graph._nodes.find(node => node.type === 'WanFLF2VLocal')
  for (const widget of widgets.filter(each => each.name in small)) widget.value = small[widget.name]
}"""
WIPES = """size => [...document.querySelectorAll('.wan-flf2v-wipe img')]
  .map(image => `${image.naturalWidth}x${image.naturalHeight}`).join() === Array(4).fill(size).join()"""
STILL = """() => {
  const {offset, scale} = app.canvas.ds, before = window.seenView
  window.seenView = [...offset, scale].join()
  return window.seenView === before
}"""
LOADED = """() => app.graph._nodes.map(node => ({
  id: node.id, type: node.type, title: node.title, mode: node.mode, known: node.type in LiteGraph.registered_node_types,
  failed: Boolean(node.has_errors), inputs: node.inputs.map(slot => [slot.name, slot.link !== null]),
  widgets: Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.value])),
}))"""


def missing() -> str | None:
    """Why there can be no browser test here, in one line, or None."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no Playwright (pip install -r tests/requirements.txt)"
    if chromium() is None:
        return "no Chromium on this machine"
    return why_not()


def chromium() -> str | None:
    return shutil.which("chromium")


@dataclass
class Box:
    """Where a node lies, with its title, in units of the graph."""

    node: int
    kind: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, left: float, top: float, width: float, height: float) -> bool:
        """Inside a group's ``bounding``, to a unit: pages round."""
        return (
            left - 1 <= self.left
            and top - 1 <= self.top
            and self.right <= left + width + 1
            and self.bottom <= top + height + 1
        )


@dataclass
class Editor:
    """One page of the editor. ``address`` is the server's; ``problems`` collects what the page threw."""

    page: Any
    address: str
    problems: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.page.set_default_timeout(LOADING)
        self.page.add_init_script(STILL_STYLE)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        # The dialog of templates without the hundreds of the core, which take long to draw.
        self.page.route("**/templates/index*.json", lambda route: route.fulfill(json=[]))
        self.page.goto(self.address)
        self.page.wait_for_function(READY)
        self.page.wait_for_load_state("networkidle")  # the blueprints come last
        self.page.set_default_timeout(PATIENCE)

    def another_tab(self) -> Editor:
        """One more page of the same person."""
        opened = Editor(self.page.context.new_page(), self.address)
        opened.start()
        return opened

    @property
    def has_nodes_2(self) -> bool:
        return bool(self.page.evaluate("'Comfy.VueNodes.Enabled' in app.extensionManager.setting.settings"))

    @property
    def canvases(self) -> tuple[bool, ...]:
        """What ``nodes_2`` can be on this page."""
        return (False, True) if self.has_nodes_2 else (False,)

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])

    def nodes_2(self, on: bool) -> None:
        """Draw nodes with Vue, or on the classic canvas."""
        if not self.has_nodes_2:
            return
        self.set("Comfy.VueNodes.Enabled", on)
        self.page.wait_for_function(f"(document.querySelector('[data-node-id]') !== null) === {str(on).lower()}")

    def command(self, name: str) -> None:
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def browse_templates(self) -> None:
        self.page.locator(".side-tool-bar-container").get_by_text("Templates", exact=True).click()
        self.page.get_by_text(NAME, exact=True).click()

    def open_template(self, name: str) -> None:
        """Click it open in the dialog; returns once its graph is there and the dialog gone."""
        self.browse_templates()
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        self.until(card.click, lambda: card.wait_for(state="hidden", timeout=AGAIN))
        self.page.wait_for_function(
            "name => app.extensionManager.workflow.activeWorkflow?.path.includes(name) && app.graph._nodes.length > 0",
            arg=name,
        )

    def open_small(self, name: str) -> None:
        """The same at a quarter of the size and half the length that the bundled model makes, for the sake of time."""
        self.open_template(name)
        self.page.evaluate(SMALL)

    def until(self, press: Callable[[], None], seen: Callable[[], None]) -> None:
        """Press, and again where nothing comes of it: a page that draws itself anew loses a click now and then."""
        from playwright.sync_api import TimeoutError as Unseen  # late: without Playwright these tests are left out

        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            press()
            try:
                return seen()
            except Unseen:
                if time.monotonic() > deadline:
                    raise

    def search(self, words: str, name: str) -> Any:
        """Type into the search for nodes, on an empty canvas: the first row it offers that has ``name``."""
        self.command("Comfy.NewBlankWorkflow")
        self.page.wait_for_function("app.graph._nodes.length === 0")
        canvas, field = self.page.locator("#graph-canvas"), self.page.locator("input:focus")
        self.until(lambda: canvas.dblclick(position={"x": 700, "y": 500}), lambda: field.wait_for(timeout=AGAIN))
        field.fill(words)
        row = self.page.get_by_role("option").filter(has_text=name).first
        row.wait_for()
        return row

    def add_node(self, name: str) -> None:
        """Search for a node by the whole of its name and take it."""
        self.search(name, name).click()
        self.page.wait_for_function("app.graph._nodes.length === 1")
        self.page.mouse.click(700, 500)  # later pages hang it on the pointer until it is put down

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate(LOADED)
        return found

    def boxes(self, nodes_2: bool) -> list[Box]:
        """Where nodes lie once they have come to rest: newer pages give them their heights one after the other."""
        look = VUE_BOXES if nodes_2 else CLASSIC_BOXES
        found, deadline = self.page.evaluate(look), time.monotonic() + PATIENCE / 1000
        while True:
            self.page.wait_for_timeout(SETTLE)
            before, found = found, self.page.evaluate(look)
            if found == before or time.monotonic() > deadline:
                return [Box(*row) for row in found]

    def groups(self) -> list[list[float]]:
        """``[left, top, width, height]`` of each, as the page has it: ComfyUI 0.8.0's spreads a graph for Nodes 2.0."""
        found: list[list[float]] = self.page.evaluate("app.graph._groups.map(each => [...each.pos, ...each.size])")
        return found

    def wipes_of(self, size: str) -> None:
        """Both ends show their image and their frame, in this size."""
        self.page.wait_for_function(WIPES, arg=size)

    def fit(self) -> None:
        """All of the graph in view."""
        self.page.evaluate("window.seenView = null")
        self.command("Comfy.Canvas.FitView")
        self.page.wait_for_function(STILL, polling=SETTLE)

    def complaints(self) -> list[str]:
        """Texts of the dialogs and notices that stand before the graph, but for the host's on the page's version."""
        places = self.page.locator("[role=dialog]:visible, [role=alert]:visible, [data-testid=error-overlay]:visible")
        texts = [text.strip() for text in places.all_inner_texts()]
        return [text for text in texts if text and OUTDATED not in text]

    def close_dialogs(self) -> None:
        """By Escape, or by a click beside the dialog: the page of ComfyUI 0.8.0 does not listen to Escape in all."""
        from playwright.sync_api import TimeoutError

        self.page.keyboard.press("Escape")  # the search for nodes, which is no dialog in that page
        dialogs = self.page.locator("[role=dialog]:visible")
        for others in reversed(range(dialogs.count())):
            dialog = dialogs.nth(others)  # none once one less is open
            self.page.keyboard.press("Escape")
            try:
                dialog.wait_for(state="hidden", timeout=CLOSING)
            except TimeoutError:
                self.page.mouse.click(*BESIDE)
                dialog.wait_for(state="hidden")

    def picture(self, path: Path) -> None:
        self.page.screenshot(path=str(path))
