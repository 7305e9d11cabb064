"""First image, last image and a prompt to a video, made by GMI Cloud."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..wan_remote import GMIRequest
from . import host, remote, widgets
from .host import io


class WanFLF2VGMI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VGMI",
            display_name="Wan FLF2V (GMI Cloud)",
            category=remote.CATEGORY,
            description="Makes a video between two images with Wan2.1 FLF2V 14B at GMI Cloud, 1280x720. Costs money "
            "there, once for the same inputs. The key comes from GMI_API_KEY, never from a graph.",
            inputs=[
                *remote.pictures(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What happens in between; must not be empty. Detailed and in Chinese works best.",
                ),
                io.Int.Input("video_length", default=5, min=5, max=10, step=5, tooltip="Seconds: 5 or 10."),
                io.Boolean.Input("prompt_extend", default=False, tooltip="Let the cloud write the prompt out."),
                remote.seed(),
                widgets.fit(optional=True),
                remote.minutes(),
                remote.take(),
            ],
            hidden=remote.GRAPH,
            outputs=remote.outputs(io.String.Output("request_id", display_name="request_id")),
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None) -> bool | str:
        if prompt is not None and not prompt.strip():
            return "prompt is empty and GMI Cloud needs one; say what happens between the images"
        return remote.key_problem("gmi") or True

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        return remote.check(GMIRequest, inputs)

    @classmethod
    async def execute(
        cls,
        first_image: Tensor,
        last_image: Tensor,
        prompt: str,
        video_length: int,
        prompt_extend: bool,
        seed: int,
        fit: str = "crop",
        wait_minutes: int = remote.WAIT,
        take: int = 1,
    ) -> io.NodeOutput:
        request = GMIRequest(
            first=remote.pixels(first_image, "first_image"),
            last=remote.pixels(last_image, "last_image"),
            prompt=prompt,
            video_length=video_length,
            prompt_extend=prompt_extend,
            seed=seed,
            fit=fit,
            take=take,
        )
        result = await remote.generate(request, wait_minutes, remote.graph(cls))
        return await remote.shown(result, result.request_id)
