"""Files, modules and options that the pages name are there."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.docs.test_links import ROOT, pages

ROOMS = ("benchmarks", "demo", "docs", "nodes", "tests", "training", "wan_local", "wan_remote")
OURS = [name for name in pages() if name.startswith("docs/") or "/" not in name]
FILE = re.compile(r"[\w./<>-]+\.(?:py|js|md|json|jsonl|toml)")
GONE = {"docs/mutation.md": {"journal.py"}, "CHANGELOG.md": set()}  # the page says so
THEIRS = {  # files and options of ComfyUI, pip and Ray
    "config.json", "extra_model_paths.yaml", "--cuda-device", "--fp32-vae", "--head", "--index-url", "--port",
    "--node-ip-address",
}  # fmt: skip
WRITTEN = re.compile(r"""["'](--[a-z][a-z0-9-]+)["']""")


@cache
def files() -> frozenset[str]:
    """Every path below the root that is one of ours, without what lies in hidden folders."""
    found = (
        path.relative_to(ROOT) for room in (*ROOMS, "js", "locales", "workflows") for path in (ROOT / room).rglob("*")
    )
    top = (path.name for path in ROOT.iterdir())
    return frozenset([*(path.as_posix() for path in found if "__pycache__" not in path.parts), *top])


@cache
def options() -> frozenset[str]:
    """Of all our commands."""
    sources = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return frozenset(name for path in sources for name in WRITTEN.findall(path.read_text("utf-8")))


def is_there(name: str) -> bool:
    """Whether some file ends so; ``<name>`` stands for any."""
    form = re.compile("(?:.*/)?" + re.sub(r"<\w+>", "[^/]+", name.replace(".", r"\.")))
    return any(form.fullmatch(path) for path in files())


def words(name: str) -> list[str]:
    """What stands between backticks."""
    page = re.sub(r"^```.*?^```", "", (ROOT / name).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", " ".join(page.split()))


@pytest.mark.parametrize("name", OURS)
def test_files_that_are_named_are_there(name: str) -> None:
    named = {each for each in words(name) if FILE.fullmatch(each) or each.split("/")[0] in ROOMS and "/" in each}
    named = {each.rstrip("/") for each in named if " " not in each} - THEIRS - GONE.get(name, set())
    assert sorted(each for each in named if not is_there(each)) == []


@pytest.mark.parametrize("name", OURS)
def test_commands_that_are_named_are_there(name: str) -> None:
    page = " ".join((ROOT / name).read_text("utf-8").split())
    for module in set(re.findall(rf"python -m ((?:{'|'.join(ROOMS)})[\w.]*)", page)):
        place = ROOT / module.rstrip(".").replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


@pytest.mark.parametrize("name", OURS)
def test_options_that_are_named_are_there(name: str) -> None:
    named = {option for each in words(name) for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]+", each)}
    assert sorted(named - options() - THEIRS - {"--help"}) == []


def test_the_rooms_of_the_map_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    block = re.search(r"## The rooms\n\n```\n(.*?)```", page, re.DOTALL)
    assert block
    room, missing = "", []
    for line in block[1].splitlines():
        head = re.match(r"(\w+)/(?:\s|$)", line)
        if head:
            room = head[1]
        for name in re.findall(
            r"(?<![\w/(])([a-z_]+(?:/|\.py))(?=[\s;,]|$)", re.split(r"\s{3,}", line.strip())[0] + " "
        ):
            missing += [] if head or (ROOT / room / name).exists() else [f"{room}/{name}"]
    assert missing == []
