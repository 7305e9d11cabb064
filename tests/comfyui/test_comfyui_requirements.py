"""What the pack needs fits into ComfyUI's own environment, and moves nothing that is there."""

from __future__ import annotations

import json
import subprocess

import pytest
from comfy_server import PACK, checkout, interpreter, why_not

NO_PIP, NO_INDEX = "No module named pip", "(from versions: none)"
SECONDS = 300.0  # for an index far away


def pip(*arguments: str) -> str:
    """What ComfyUI's own pip answers; skips where it has none, or none that reaches an index."""
    command = [interpreter(checkout()), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
    for reason in (NO_PIP, NO_INDEX):
        if done.returncode and reason in done.stderr:
            pytest.skip(f"pip of ComfyUI's Python can't be asked: {reason}")
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_installing_the_requirements_changes_no_version_of_the_host() -> None:
    there = {row["name"].lower(): row["version"] for row in json.loads(pip("list", "--format", "json"))}
    report = json.loads(pip("install", "--quiet", "--dry-run", "--report", "-", "-r", str(PACK / "requirements.txt")))
    added = {row["metadata"]["name"].lower(): row["metadata"]["version"] for row in report["install"]}
    print(f"{len(there)} packages there, to be added: {added or 'none'}")
    assert {name: (there[name], added[name]) for name in added if name in there} == {}
