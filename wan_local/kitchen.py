"""comfy-kitchen (github.com/Comfy-Org/comfy-kitchen), whose kernels do in one pass what takes torch several.

It comes with ComfyUI, in many versions; nothing here needs it. What it has is asked for by name, never by version.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

PACKAGE = "comfy_kitchen"


def function(name: str) -> Callable[..., Any] | None:
    """Its function of that name, if it is installed, has it and has CUDA kernels that run here; else None."""
    return getattr(package()[0], name, None)


@cache
def package() -> tuple[Any, str]:
    """The package if its CUDA kernels run here, or None and why not. Imported once a process, when first asked for."""
    try:
        module = importlib.import_module(PACKAGE)
        cuda = module.list_backends()["cuda"]
    except Exception as error:  # a build for another torch fails in many ways, not only ImportError
        return None, f"{PACKAGE}: {error}"
    if cuda["available"] and not cuda["disabled"]:
        return module, ""
    return None, f"{PACKAGE}: {cuda.get('unavailable_reason') or 'its CUDA kernels are switched off'}"
