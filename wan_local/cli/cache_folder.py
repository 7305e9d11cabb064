"""Where the command line keeps what can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NAME = "wan_flf2v"


def default_folder() -> Path | None:
    """The user's own cache folder by the habits of the system; None for a user who has no home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return home / "AppData" / "Local" / NAME / "Cache" / "prompts"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / NAME / "prompts"
    said = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is to be ignored, says the XDG specification
    return (Path(said) if os.path.isabs(said) else home / ".cache") / NAME / "prompts"
