"""What the pages point at is there: files, and headings in them."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PICTURES = 1024 * 1024  # bytes that one may have
README, CHINESE = "README.md", "README.zh.md"


@cache
def pages() -> list[str]:
    done = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    found = [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    return found or sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def prose(page: Path) -> str:
    """Without what stands in fences and between backticks."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE))


@cache
def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE):
        kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
        found.add("".join(kept).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", pages())
def test_links_within_the_repository_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(place), f"{target}: {sorted(anchors(place))}"


@pytest.mark.parametrize("name", [README, CHINESE])
def test_the_first_page_is_narrow_and_its_pictures_are_small(name: str) -> None:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 100] == []
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", "\n".join(lines))
    assert len(shown) >= 2
    assert all((ROOT / each).stat().st_size < PICTURES for each in shown)


def test_the_chinese_page_says_what_the_english_one_does() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in (README, CHINESE))
    for form in (r"^## ", r"^\| ", r"^```", r"^\*\*", r"^- ", r"^\d\. "):
        assert len(re.findall(form, english, re.MULTILINE)) == len(re.findall(form, chinese, re.MULTILINE)), form
    assert set(LINK.findall(english)) - {CHINESE} == set(LINK.findall(chinese)) - {README}
