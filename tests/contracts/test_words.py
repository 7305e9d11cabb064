"""Every node can be found, read and asked for help in English and in Chinese."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAN = re.compile("[\u4e00-\u9fff]")
SEARCHED = ("wan", "flf", "first last", "首帧", "尾帧", "首尾帧")  # first, last, both frames
MAKERS = ("WanFLF2VLocal", "WanFLF2VGMI", "WanFLF2VWaveSpeed")  # image to video in one node
IMAGE_TO_VIDEO = ("image to video", "图生视频")


def read(path: str) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


SCHEMAS = read("tests/comfyui/node_schemas.json")
WORDS = {language: read(f"locales/{language}/nodeDefs.json") for language in ("en", "zh")}


def test_nothing_is_said_of_nodes_that_are_not_there() -> None:
    pages = {path.stem for path in (ROOT / "js" / "docs").glob("*.md")}
    folders = {path.parent.name for path in (ROOT / "js" / "docs").glob("*/*.md")}
    found = read("locales/search.json").keys() - {"every"}
    assert set(SCHEMAS) == pages == folders == found == WORDS["en"].keys() == WORDS["zh"].keys()


@pytest.mark.parametrize("node", SCHEMAS)
def test_help_is_there_in_both_languages(node: str) -> None:
    """Where the page asks for it: js/docs/<id>/<language>.md, then js/docs/<id>.md."""
    english = (ROOT / "js" / "docs" / f"{node}.md").read_text("utf-8")
    chinese = (ROOT / "js" / "docs" / node / "zh.md").read_text("utf-8")
    assert english.startswith(f"# {WORDS['en'][node]['display_name']}\n")
    assert chinese.startswith(f"# {WORDS['zh'][node]['display_name']}\n")
    for name, row in WORDS["zh"][node]["inputs"].items():
        assert name in english, name
        assert row["name"] in chinese, row["name"]
    assert not HAN.search(english)
    assert len(HAN.findall(chinese)) > len(english.split()) / 3, "shorter than the English page"
    assert english.count("\n| ") == chinese.count("\n| "), "not the same rows"
    assert english.count("\n## ") == chinese.count("\n## "), "not the same parts"


@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("node", SCHEMAS)
def test_all_that_a_node_shows_is_in_the_language(node: str, language: str) -> None:
    words, schema = WORDS[language][node], SCHEMAS[node]
    assert list(words["inputs"]) == list(schema["inputs"])
    assert list(words["outputs"]) == [str(index) for index in range(len(schema["outputs"]))]
    for text in (words["description"], *(row["tooltip"] for row in words["inputs"].values())):
        assert bool(HAN.search(text)) == (language == "zh" and not re.fullmatch(r"Wan2\.1 VAE。", text)), text
    for row in (*words["inputs"].values(), *words["outputs"].values()):
        assert row["name"].strip()


@pytest.mark.parametrize("node", SCHEMAS)
def test_search_finds_it(node: str) -> None:
    """A page without search words looks at the id and the name in its language alone."""
    words = read("locales/search.json")
    found = [*words["every"], *words[node]]
    assert len(set(found)) == len(found)
    for wanted in SEARCHED:
        assert any(wanted in word for word in found), wanted
    if node in MAKERS:
        assert set(IMAGE_TO_VIDEO) <= set(found)
    assert "首尾帧" in WORDS["zh"][node]["display_name"]
