"""First image, last image and a prompt to a video, made by GMI Cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..wan_remote import GMIRequest
from . import cloud_inputs, cloud_run, host, widgets
from .host import io


class WanFLF2VGMI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VGMI",
            display_name="Wan FLF2V (GMI Cloud)",
            category=cloud_inputs.CATEGORY,
            description="Makes a video between two images with Wan2.1 FLF2V 14B at GMI Cloud, 1280x720. Costs money "
            "there, once for the same inputs. The key is stored by *Set key* on the node, never in a graph.",
            inputs=[
                *cloud_inputs.images(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What happens in between; must not be empty. Detailed and in Chinese works best.",
                ),
                io.Int.Input("video_length", default=5, min=5, max=10, step=5, tooltip="Seconds: 5 or 10."),
                io.Boolean.Input("prompt_extend", default=False, tooltip="Let the cloud write the prompt out."),
                cloud_inputs.seed(),
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
        if any(text is not None and not text.strip() for text in prompt):
            return "prompt is empty and GMI Cloud needs one; say what happens between the images"
        return cloud_run.key_problem("gmi") or True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Sequence[Any]) -> str:
        return cloud_run.missing_files()

    @classmethod
    def check_lazy_status(cls, **inputs: Sequence[Any]) -> list[str]:
        return cloud_inputs.check(GMIRequest, inputs)

    @classmethod
    async def execute(cls, **inputs: Sequence[Any]) -> io.NodeOutput:
        return await cloud_run.make(cls, GMIRequest, inputs)
