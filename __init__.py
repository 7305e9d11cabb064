"""ComfyUI-WanFLF2V as ComfyUI sees it: a web folder and a door. Nothing else happens at import.

The nodes are imported when the host asks for them, so that importing this package elsewhere (a test run, a
tool) needs no ComfyUI.
"""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./js"


async def comfy_entrypoint() -> Any:
    """Called once by ComfyUI (V3 nodes) when it loads custom nodes."""
    from .nodes import Extension

    return Extension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
