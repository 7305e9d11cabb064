"""``python -m wan_local``, or ``python PATH/wan_local`` from any folder; see :mod:`wan_local.cli`."""

from __future__ import annotations

import os
import runpy
import sys

if __name__ == "__main__" and not __package__:  # by its path: that beside it is to be imported, not what is in it
    HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(HERE), *(each for each in sys.path if os.path.abspath(each) != HERE)]
    runpy.run_module("wan_local", {"by_path": True}, "__main__", alter_sys=True)
elif __name__ == "__main__":
    from . import command

    command.run_by_path = "by_path" in globals()
    try:
        from .cli import main

        sys.exit(main())
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__):
            raise
        sys.exit(
            f"{command.program()}: {error.name} is not installed in {sys.executable}; use the Python that ComfyUI "
            "runs in, or bring it with `pip install -r requirements.txt`"
        )
