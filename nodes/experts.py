"""The two experts of Wan2.2 as one model."""

from __future__ import annotations

from ..wan_local.settings import BOUNDARY
from ..wan_local.weights.experts import timestep_of
from . import host, widgets
from .host import io
from .sockets.model import Model, WanModel
from .sockets.model_experts import ExpertsModel


class WanFLF2VExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VExperts",
            display_name="Wan FLF2V Experts",
            category=widgets.ROOT,
            description="Makes one model of Wan2.2's two: the high-noise expert does the first steps, the low-noise "
            "expert the others. Steps 40, guidance 3.5 and shift 5 are what they were published with.",
            inputs=[
                Model.Input("high_noise", tooltip="The file with high_noise in its name, or a LoRA on it."),
                Model.Input("low_noise", tooltip="The file with low_noise in its name, or a LoRA on it."),
                io.Float.Input(
                    "boundary",
                    default=BOUNDARY,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Share of the noise from which on the high-noise expert works. It is compared with each "
                    "step's timestep, so shift decides how many steps that are.",
                ),
                io.Float.Input(
                    "low_noise_guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Guidance of the low-noise expert; 0 takes the sampler's.",
                ),
            ],
            outputs=[Model.Output("model", display_name="model")],
        )

    @classmethod
    def execute(
        cls, high_noise: WanModel, low_noise: WanModel, boundary: float, low_noise_guidance: float
    ) -> io.NodeOutput:
        model = ExpertsModel(high_noise, low_noise, boundary, low_noise_guidance or None)
        host.show_text(f"high noise from timestep {timestep_of(boundary):g} on, low noise below")
        return io.NodeOutput(model)
