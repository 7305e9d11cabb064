"""What not every ComfyUI has is looked up in one folder, and the page about ComfyUI's releases says each of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = ROOT / "nodes" / "host"
OURS = {
    "PromptServer",  # there is none outside a running server, in any release
    "instance",
    "value",  # of an enum or a text, as the host's own Save Video takes both
}


def looked_up(path: Path) -> set[str]:
    """Names that a source asks for which may not be there."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    asked = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr")]
    return {call.args[1].value for call in asked if isinstance(call.args[1], ast.Constant)}


def test_the_page_about_hosts_names_each_lookup_and_its_test():
    rows = [line for line in (ROOT / "docs" / "hosts.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    named = {name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row)}
    found = set().union(*(looked_up(path) for path in HOST.glob("*.py"))) - OURS
    assert found >= {"CoreModelPatcher", "is_oom", "send_progress_text"}
    assert found <= named
    tests = {name for row in rows for name in re.findall(r"`([a-z_]+\.py)`", row.split("|")[-2])}
    there = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert tests <= there


def test_what_the_host_may_lack_is_looked_up_in_one_folder():
    names = set().union(*(looked_up(path) for path in HOST.glob("*.py"))) - OURS
    elsewhere = [path for path in (ROOT / "nodes").rglob("*.py") if path.parent != HOST]
    assert {path.name: looked_up(path) & names for path in elsewhere if looked_up(path) & names} == {}
