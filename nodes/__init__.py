"""The nodes of this pack: ``NODES`` is the table, one file a node.

A node is a schema, a check and a call into a library. ``host.py`` alone imports ComfyUI, ``convert.py`` alone
does tensors, ``sockets.py`` and the files it names hold what travels on the wires.
"""

from __future__ import annotations

from . import host
from .load_pipeline import WanFLF2VLoadPipeline
from .local import WanFLF2VLocal

NODES = (
    WanFLF2VLoadPipeline,
    WanFLF2VLocal,
)


class Extension(host.ComfyExtension):
    """What ComfyUI asks for nodes."""

    async def on_load(self) -> None:
        host.register_folders()

    async def get_node_list(self) -> list[type[host.io.ComfyNode]]:
        return list(NODES)
