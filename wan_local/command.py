"""How a person calls this program from a shell: what is told to be pasted has to run in the Python that tells it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

run_by_path = False  # set by __main__.py


def program() -> str:
    """``python -m wan_local``; by its path where it was run so, or where -m does not look into the folder, as in
    ComfyUI's portable build."""
    if run_by_path or sys.flags.isolated or getattr(sys.flags, "safe_path", False):  # safe_path is of Python 3.11
        return pasted([sys.executable, os.path.dirname(os.path.abspath(__file__))])
    return "python -m wan_local"


def pasted(words: Sequence[str]) -> str:
    """Words as the shell of this system takes them."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
