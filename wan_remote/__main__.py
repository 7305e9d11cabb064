"""``python -m wan_remote``, or ``python PATH/wan_remote`` from any folder: clips from the clouds without ComfyUI."""

from __future__ import annotations

import os
import runpy
import sys

if __name__ == "__main__" and not __package__:  # by its path: that beside it is to be imported, not what is in it
    HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(HERE), *(each for each in sys.path if os.path.abspath(each) != HERE)]
    runpy.run_module("wan_remote", {"by_path": True}, "__main__", alter_sys=True)
elif __name__ == "__main__":
    from . import command

    command.run_by_path = "by_path" in globals()
    from .cli import main

    sys.exit(main())
