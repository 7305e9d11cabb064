"""``python -m wan_remote``: clips from the clouds without ComfyUI."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
