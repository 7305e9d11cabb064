"""The nodes of this pack: ``NODES`` is the table, one file a node, named as the node is.

A node is a schema, a check and a call into a library. ``host/`` alone imports ComfyUI. ``sockets/`` has what travels on
the wires, a file a socket. The rest is what several nodes share: ``widgets.py`` their inputs, ``progress.py`` what they
show, ``weight_files.py`` and ``loading.py`` of the loaders, ``kept_latents.py`` of what decodes, ``cloud_*.py`` of the
cloud nodes. ``editor/`` answers the pack's own pages.
"""

from __future__ import annotations

from ..wan_local import notices
from . import editor, host
from .account import WanFLF2VAccount
from .chain import WanFLF2VChain
from .compare import WanFLF2VCompare
from .conditioning import WanFLF2VConditioning
from .decode import WanFLF2VDecode
from .ends import WanFLF2VEnds
from .experts import WanFLF2VExperts
from .fetch_result import WanFLF2VFetchResult
from .gmi import WanFLF2VGMI
from .keyframe import WanFLF2VKeyframe
from .load_model import WanFLF2VLoadModel
from .load_pipeline import WanFLF2VLoadPipeline
from .load_vae import WanFLF2VLoadVAE
from .local import WanFLF2VLocal
from .lora import WanFLF2VLoRA
from .multi_gpu import WanFLF2VMultiGPU
from .sampler import WanFLF2VSampler
from .schedule import WanFLF2VSchedule
from .speed import WanFLF2VSpeed
from .wavespeed import WanFLF2VWaveSpeed

NODES = (
    WanFLF2VLoadPipeline,
    WanFLF2VLoadModel,
    WanFLF2VLoadVAE,
    WanFLF2VLoRA,
    WanFLF2VExperts,
    WanFLF2VMultiGPU,
    WanFLF2VSpeed,
    WanFLF2VKeyframe,
    WanFLF2VConditioning,
    WanFLF2VSchedule,
    WanFLF2VSampler,
    WanFLF2VDecode,
    WanFLF2VEnds,
    WanFLF2VCompare,
    WanFLF2VLocal,
    WanFLF2VChain,
    WanFLF2VGMI,
    WanFLF2VWaveSpeed,
    WanFLF2VFetchResult,
    WanFLF2VAccount,
)


class Extension(host.ComfyExtension):
    """What ComfyUI asks for nodes."""

    async def get_node_list(self) -> list[type[host.io.ComfyNode]]:
        host.register_folders()  # not in on_load, which ComfyUI 0.8.0 never calls
        notices.listen(host.notify)
        editor.register(NODES)
        return list(NODES)
