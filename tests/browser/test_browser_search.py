"""The editor's search for nodes, by what people type who want a video between two images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from comfy_server import ComfyServer
from editor import Editor

OURS = "Wan FLF2V"


@pytest.mark.parametrize("words", ["wan", "flf", "first last", "首尾帧", "首帧"])
def test_the_search_offers_our_nodes(editor: Editor, server: ComfyServer, words: str) -> None:
    if not words.isascii() and not knows_search_words(server):
        pytest.skip("this page searches names alone, and the names of an English page have no Chinese in them")
    editor.search(words, OURS)
    assert editor.problems == []


def knows_search_words(server: ComfyServer) -> bool:
    return any(info.get("search_aliases") for info in server.get("/object_info").values())


@pytest.fixture
def chinese(server: ComfyServer, browser: Any) -> Iterator[Editor]:
    """A page of its own: one that changes its language later keeps the names it has."""
    assert server.post("/settings/Comfy.Locale", "zh")[0] == 200
    opened = Editor(browser.new_page(viewport={"width": 1600, "height": 1000}), f"http://127.0.0.1:{server.port}/")
    try:
        opened.start()
        yield opened
    finally:
        opened.page.close()
        server.post("/settings/Comfy.Locale", "en")


def test_a_chinese_page_has_the_words_in_the_names(chinese: Editor) -> None:
    assert "首尾帧" in chinese.search("首尾帧", OURS).inner_text()
