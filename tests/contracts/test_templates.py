"""The templates as files: what the host asks of a pack's folder, and what a person needs to find in each graph."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_host_finds_one_folder_of_templates() -> None:
    """ComfyUI looks into these five in this order, lists what all of them hold and serves the first alone."""
    looked_into = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [name for name in looked_into if (ROOT / name).exists()] == ["workflows"]
