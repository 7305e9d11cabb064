"""Load a VAE from one file."""

from __future__ import annotations

from typing import Any

from . import host, weight_files, widgets
from .host import io
from .loading import DTYPES, load_vae

KIND = "vae"


class WanFLF2VLoadVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLoadVAE",
            display_name="Load Wan FLF2V VAE",
            category=widgets.ROOT,
            description="Loads the Wan2.1 VAE. It streams: memory does not grow with the length of a clip.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=weight_files.names(KIND),
                    tooltip="A file in models/vae, such as wan_2.1_vae.safetensors or Wan2.1_VAE.pth, or the small "
                    "model that comes with this pack.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="What it decodes in; default is what ComfyUI decodes in here. It always "
                    "encodes in float32.",
                ),
            ],
            outputs=[io.Vae.Output("vae", display_name="vae")],
        )

    @classmethod
    def fingerprint_inputs(cls, vae_name: str, **others: Any) -> Any:
        return weight_files.stamp(KIND, vae_name)

    @classmethod
    def execute(cls, vae_name: str, dtype: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(weight_files.path(KIND, "vae_name", vae_name), dtype))
