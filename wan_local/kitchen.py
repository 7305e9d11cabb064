"""comfy-kitchen (github.com/Comfy-Org/comfy-kitchen), whose kernels do in one pass what takes torch several.

It comes with ComfyUI, in many versions; nothing here needs it. What it has is asked for by name, never by version.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from .free_memory import is_out_of_memory

PACKAGE = "comfy_kitchen"

log = logging.getLogger("wan_local.kitchen")
_broken: set[str] = set()  # functions that failed once


def call(name: str, *args: object, **options: object) -> Any:
    """What its function of that name gives; None where there is none, or where it fails, which is said once."""
    found = function(name)
    if found is None or name in _broken:
        return None
    try:
        return found(*args, **options)
    except Exception as error:  # whatever a foreign kernel raises means the same, but for want of memory
        if is_out_of_memory(error):
            raise
        log.warning("%s.%s is not used: %s", PACKAGE, name, error)
        _broken.add(name)
        return None


def function(name: str) -> Callable[..., Any] | None:
    """Its function of that name, if it is installed, has it and has CUDA kernels that run here; else None."""
    return getattr(package()[0], name, None)


@cache
def package() -> tuple[ModuleType | None, str]:
    """The package if its CUDA kernels run here, or None and why not. Imported once a process, when first asked for."""
    module, reason = installed()
    if module is None:
        return None, reason
    cuda = module.list_backends()["cuda"]
    if cuda["available"] and not cuda["disabled"]:
        return module, ""
    return None, f"{PACKAGE}: {cuda.get('unavailable_reason') or 'its CUDA kernels are switched off'}"


def installed() -> tuple[ModuleType | None, str]:
    """The package, whether its CUDA kernels run here or not: on a CPU some of it is calculated by torch. Or None and
    why it can't be imported."""
    try:
        module = importlib.import_module(PACKAGE)
        module.list_backends()["cuda"]
    except Exception as error:  # a build for another torch fails in many ways, not only ImportError
        return None, f"{PACKAGE}: {error}"
    return module, ""
