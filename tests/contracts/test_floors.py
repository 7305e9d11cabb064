"""The lowest releases that the pack asks for are said once, and are those that ``make floor`` runs it on."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lines(name: str) -> list[str]:
    """The requirements in a file of pip's, without comments."""
    found = (line.split("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    return [line for line in found if line]


def test_pyproject_asks_for_what_requirements_ask_for():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    table = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert table is not None
    assert re.findall(r'"(.+?)"', table[1]) == lines("requirements.txt")


def test_every_requirement_has_a_floor_and_is_run_on_it():
    tried = dict(line.split("==") for line in lines("tests/floor.txt"))
    for line in lines("requirements.txt"):
        name, floor = line.split(">=")
        assert tried[name] in (floor, f"{floor}.0"), line


def test_every_requirement_has_its_reason():
    page = (ROOT / "docs" / "decisions" / "0019-libraries.md").read_text("utf-8")
    named = re.findall(r"^\| `([a-z]+)` \|", page.split("## What each requirement is for")[1], re.MULTILINE)
    assert named == [line.split(">=")[0] for line in lines("requirements.txt")]


def test_the_oldest_pyav_is_among_those_of_the_video_tests():
    floor = dict(line.split(">=") for line in lines("requirements.txt"))["av"]
    releases = re.search(r"^HOST_PYAV \?= (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert releases is not None
    assert f"{floor}.0" in releases[1].split()
