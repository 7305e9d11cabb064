"""First image, last image and a prompt to a video, made by WaveSpeedAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..wan_remote import WaveSpeedRequest
from . import cloud_inputs, cloud_run, host, widgets
from .host import io


class WanFLF2VWaveSpeed(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VWaveSpeed",
            display_name="Wan FLF2V (WaveSpeedAI)",
            category=cloud_inputs.CATEGORY,
            description="Makes a video between two images with Wan2.1 FLF2V 14B at WaveSpeedAI. Costs money there, "
            "once for the same inputs. The key is stored by *Set key* on the node, never in a graph.",
            inputs=[
                *cloud_inputs.images(),
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, tooltip="What happens in between; may be empty."
                ),
                io.String.Input(
                    "negative_prompt", multiline=True, dynamic_prompts=True, tooltip="What to stay away from."
                ),
                io.Int.Input("duration", default=5, min=5, max=10, tooltip="Seconds. The price list knows 5 and 10."),
                io.Combo.Input(
                    "size",
                    options=list(WaveSpeedRequest.SIZES),
                    default=WaveSpeedRequest.SIZES[0],
                    tooltip="Width and height in pixels; the larger two cost more.",
                ),
                io.Int.Input("num_inference_steps", default=30, min=1, max=40, tooltip="Sampling steps."),
                io.Float.Input(
                    "guidance_scale",
                    default=5.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How strictly to follow the prompt.",
                ),
                cloud_inputs.seed(),
                io.Boolean.Input(
                    "enable_safety_checker", default=True, tooltip="The cloud's content filter; it may withhold a clip."
                ),
                widgets.fit(optional=True),
                cloud_inputs.minutes(),
                cloud_inputs.take(),
            ],
            hidden=cloud_inputs.GRAPH,
            outputs=cloud_inputs.list_outputs(),
            is_input_list=True,
        )

    @classmethod
    def validate_inputs(cls, prompt: Sequence[str | None]) -> bool | str:
        return cloud_run.key_problem("wavespeed") or True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Sequence[Any]) -> str:
        return cloud_run.missing_files()

    @classmethod
    def check_lazy_status(cls, **inputs: Sequence[Any]) -> list[str]:
        return cloud_inputs.check(WaveSpeedRequest, inputs)

    @classmethod
    async def execute(cls, **inputs: Sequence[Any]) -> io.NodeOutput:
        return await cloud_run.make(cls, WaveSpeedRequest, inputs)
