"""Load a transformer from one file."""

from __future__ import annotations

from typing import Any

from . import host, weight_files, widgets
from .host import io
from .loading import DTYPES, FAST, load_model
from .sockets.model import Model

KIND = "diffusion_models"


class WanFLF2VLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLoadModel",
            display_name="Load Wan FLF2V Model",
            category=widgets.ROOT,
            description="Loads a first-last-frame transformer of Wan2.1, or an expert of Wan2.2, from one file in "
            "models/diffusion_models.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=weight_files.names(KIND),
                    tooltip="A file in models/diffusion_models (fp16, bf16, fp8, GGUF), or the small model that comes "
                    "with this pack. What it is shows from its content.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=[*DTYPES, FAST],
                    default="default",
                    tooltip="What the weights are kept in; default keeps what the file holds, fp8 and GGUF included. "
                    "A GPU calculates with float32 weights in half precision, unless fp32 is chosen. fp8_fast also "
                    "multiplies fp8 weights in fp8, and int8 ones in int8, on GPUs that can: faster, less exact.",
                ),
                widgets.attention(),
                widgets.compiled(),
            ],
            outputs=[Model.Output("model", display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str, **others: Any) -> Any:
        return weight_files.stamp(KIND, model_name)

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str, attention: str, compile: bool = False) -> io.NodeOutput:
        path = weight_files.path(KIND, "model_name", model_name)
        return io.NodeOutput(load_model(path, weight_dtype, attention, compiled=compile))
