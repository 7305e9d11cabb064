"""The file a fresh interpreter is started with: makes ``wan_local`` importable under its plain name.

Run as a script by the launchers and loaded by path inside a Ray worker. Only the standard library, and nothing of
the path is changed for good: the library is found by its folder, so neither the pack's own ``nodes/`` nor the
working directory can hide a module of somebody else, and no other ``wan_local`` can take the place of this one.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location

HERE = os.path.dirname(os.path.realpath(__file__))
LIBRARY = os.path.dirname(HERE)
PROGRAMS = ("rank", "ray_process")


def load_library() -> None:
    """Put the library this file belongs to into ``sys.modules`` as ``wan_local``."""
    if "wan_local" in sys.modules:
        return
    init = os.path.join(LIBRARY, "__init__.py")
    if os.path.isfile(init):
        spec = spec_from_file_location("wan_local", init, submodule_search_locations=[LIBRARY])
    else:
        spec = ModuleSpec("wan_local", None, is_package=True)
        spec.submodule_search_locations = [LIBRARY]
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["wan_local"] = module
    if spec.loader is not None:
        spec.loader.exec_module(module)


def main() -> None:
    """``start.py rank`` or ``start.py ray_process``; everything else comes over standard input."""
    program = sys.argv[1] if len(sys.argv) == 2 else ""
    if program not in PROGRAMS:
        raise SystemExit(f"started by the library itself, with one of {PROGRAMS}; got {sys.argv[1:]}")
    if sys.path and os.path.realpath(sys.path[0] or os.curdir) == HERE:
        del sys.path[0]  # a script's own folder comes first on the path; its file names are not top-level modules
    load_library()
    importlib.import_module(f"wan_local.ranks.{program}").main()


if __name__ == "__main__":
    main()
