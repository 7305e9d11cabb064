"""What can be checked of the host's side without a server, in ComfyUI's own interpreter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from comfy_server import inside, why_not

pytestmark = pytest.mark.timeout(600)  # the first waits for all checks
SCRIPT = Path(__file__).with_name("inside_comfyui.py")
NAMES = [
    node.name
    for file in sorted(SCRIPT.parent.glob("inside_*.py"))
    if file.stem != "inside_model_on_gpus"  # which has a test of its own
    for node in ast.parse(file.read_text("utf-8")).body
    if isinstance(node, ast.FunctionDef) and any(getattr(mark, "id", "") == "check" for mark in node.decorator_list)
]


@pytest.fixture(scope="session")
def outcomes() -> dict[str, list[str | None]]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return inside(SCRIPT)


@pytest.mark.parametrize("name", NAMES)
def test_inside(outcomes: dict[str, list[str | None]], name: str) -> None:
    failed, measured = outcomes[name]
    assert failed is None, failed
    print(f"{name}: {measured}")
