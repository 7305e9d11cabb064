"""``python -m wan_local``; see :mod:`wan_local.cli`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from .cli import main

        sys.exit(main())
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__):
            raise
        sys.exit(
            f"python -m {__package__}: {error.name} is not installed in {sys.executable}; use the Python that ComfyUI "
            "runs in, or bring it with `pip install -r requirements.txt`"
        )
