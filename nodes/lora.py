"""A LoRA on a model."""

from __future__ import annotations

from typing import Any

from ..wan_local import lora
from ..wan_local.weights.experts import level_of
from . import host, weight_files, widgets
from .host import io
from .sockets.model import Model, WanModel

KIND = "loras"


class WanFLF2VLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLoRA",
            display_name="Wan FLF2V LoRA",
            category=widgets.ROOT,
            description="Puts a LoRA on the model. Chain several; the file is loaded and counted, name by name.",
            inputs=[
                Model.Input("model", tooltip="From a loader, or from another LoRA."),
                io.Combo.Input(
                    "lora_name",
                    options=host.model_files(KIND),
                    tooltip="A file in models/loras, made for Wan2.1 or Wan2.2 14B. The node and the log say what of "
                    "it was used.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="1 is what it was made for, 0 switches it off, negative reverses it.",
                ),
            ],
            outputs=[Model.Output("model", display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **others: Any) -> Any:
        return weight_files.stamp(KIND, lora_name)

    @classmethod
    def execute(cls, model: WanModel, lora_name: str, strength: float) -> io.NodeOutput:
        path = weight_files.path(KIND, "lora_name", lora_name)
        if strength == 0:
            return io.NodeOutput(model)
        found = lora.read(path, model.shapes)
        report = found.report()
        level = level_of(lora_name)
        if level is not None and model.level not in (None, level):
            report += f"; its name says {level} noise, and it is put on {model.level}"
        host.log.info("%s", report)
        host.show_text(report)
        return io.NodeOutput(model.with_lora(found, strength))
