"""``python -m wan_local``; see :mod:`wan_local.cli`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
