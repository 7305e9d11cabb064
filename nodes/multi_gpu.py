"""A loaded model spread over several GPUs, on this machine or on a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ..wan_local.parallel.setup import TooFewGPUs
from . import host, widgets
from .host import io
from .sockets.model import Model
from .sockets.model_on_gpus import MultiModel

CFG = {"auto": 0, "on": 2, "off": 1}
MOST = 64


class WanFLF2VMultiGPU(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VMultiGPU",
            display_name="Wan FLF2V Multi GPU",
            category=widgets.ROOT,
            description="Samples one clip on several GPUs at once, with the frames of one. Processes start at the "
            "first run, keep the weights between runs, and end after 15 minutes without one, or with Unload Models.",
            inputs=[
                Model.Input("model", tooltip="From a loader, or from a LoRA behind one; of Wan2.2 behind Experts."),
                io.Int.Input("gpus", default=2, min=1, max=MOST, tooltip="How many GPUs, the first ones there are."),
                io.Int.Input(
                    "ulysses",
                    default=0,
                    min=0,
                    max=MOST,
                    tooltip="GPUs that share the attention heads; it must divide the 40 heads: 2, 4, 5, 8. 0 chooses.",
                ),
                io.Int.Input(
                    "ring",
                    default=0,
                    min=0,
                    max=MOST,
                    tooltip="GPUs around which keys and values go, for numbers that do not divide heads. 0 chooses.",
                ),
                io.Combo.Input(
                    "cfg_parallel",
                    options=list(CFG),
                    default="auto",
                    tooltip="Prompt and negative prompt at once, on half of the GPUs each. It moves next to nothing.",
                ),
                io.Boolean.Input(
                    "fsdp",
                    default=False,
                    tooltip="Shard the weights over the GPUs, where they do not fit on one. Not for packed files (fp8, "
                    "int8, fp4, GGUF), not with LoRAs, and not with compile.",
                ),
                io.String.Input(
                    "ray_address",
                    default="",
                    tooltip="Empty: GPUs of this machine. host:port of a Ray head node for several machines; the model "
                    'files and this pack must be there under the same path. Needs pip install "ray>=2.52,<3".',
                ),
            ],
            outputs=[Model.Output("model", display_name="model")],
        )

    @classmethod
    def execute(
        cls, model: Any, gpus: int, ulysses: int, ring: int, cfg_parallel: str, fsdp: bool, ray_address: str
    ) -> io.NodeOutput:
        fields = {"gpus": gpus, "ulysses": ulysses, "ring": ring, "cfg": CFG[cfg_parallel], "fsdp": fsdp}
        try:
            multi = MultiModel(replace(model.setup, ray_address=ray_address.strip(), **fields))
        except TooFewGPUs as error:
            raise TooFewGPUs(f"{error}{hidden_gpus()}") from error
        multi = multi.with_approximations(model.approximations)
        host.show_text(multi.transformer.why)
        host.log.info("%d GPUs: %s", gpus, multi.transformer.why)
        return io.NodeOutput(multi)


def hidden_gpus() -> str:
    """Why torch may see fewer GPUs than there are: what ComfyUI shows it."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return ""
    return f"; CUDA_VISIBLE_DEVICES={shown} shows it only those: start ComfyUI with --cuda-device 0,1,... to name more"
