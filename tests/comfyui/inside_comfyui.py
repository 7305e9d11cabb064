"""Checks that need ComfyUI's own modules; run by ComfyUI's interpreter, in no server.

``python inside_comfyui.py COMFYUI PACK`` prints one JSON object: each check's name, what failed or null, and what was
measured, beginning with the seconds it took.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import inside_conditioning  # noqa: F401  (puts its checks in the table)
import inside_decode  # noqa: F401  (likewise)
import inside_encoders  # noqa: F401  (likewise)
import inside_formats  # noqa: F401  (likewise)
import inside_host  # noqa: F401  (likewise)
import inside_image  # noqa: F401  (likewise)
import inside_keyframes  # noqa: F401  (likewise)
import inside_loras  # noqa: F401  (likewise)
import inside_model  # noqa: F401  (likewise)
import inside_packed  # noqa: F401  (likewise)
import inside_run_speed  # noqa: F401  (likewise)
import inside_switches  # noqa: F401  (likewise)
import inside_video  # noqa: F401  (likewise)
from inside_checks import CHECKS, Check


def main(comfyui: str, pack: str) -> dict[str, list[str | None]]:
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, comfyui)
    importlib.import_module("comfy.options").enable_args_parsing()
    # As ComfyUI imports a pack: under a name that is no package name, found by its file.
    spec = importlib.util.spec_from_file_location("pack_under_test", Path(pack, "__init__.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    nodes = importlib.import_module("pack_under_test.nodes")
    return {name: outcome(function, nodes) for name, function in CHECKS.items()}


def outcome(function: Check, nodes: Any) -> list[str | None]:
    began, failed, measured = time.perf_counter(), None, None
    try:
        measured = function(nodes)
    except Exception:  # all of them, to report which check failed and why
        failed = traceback.format_exc(limit=-3)
    seconds = f"{time.perf_counter() - began:.1f} s"
    return [failed, f"{seconds}, {measured}" if measured else seconds]


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
