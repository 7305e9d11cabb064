"""The project's tests that are skipped where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from .lab import Lab

ROOT = Path(__file__).parents[2]
FOLDERS = ("attention", "memory", "quantised", "model", "parallel/test_setup.py", "test_generate.py")
LIMIT = 150.0  # seconds


def measure(lab: Lab) -> None:
    if lab.toy or not lab.on_gpu:
        lab.tell("pytest", "not run", why="these tests need a GPU")
        return
    if importlib.util.find_spec("pytest") is None:
        lab.tell("pytest", "not run", why="it is not installed")
        return
    folders = [str(ROOT / "tests" / "wan_local" / name) for name in FOLDERS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-rf", "-k", "gpu or cuda or card", *folders]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        lab.tell("pytest", "did not end", holds=False, seconds=LIMIT)
        return
    lines = (done.stdout.strip() or done.stderr.strip() or "said nothing").splitlines()
    lab.tell("pytest", lines[-1], holds=done.returncode == 0)
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            lab.tell("pytest", line[:250], holds=False)
