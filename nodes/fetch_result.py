"""A clip that was paid for before, by its id."""

from __future__ import annotations

from ..wan_remote.errors import InvalidRequest
from ..wan_remote.providers import PROVIDERS
from . import cloud_inputs, cloud_run, host
from .host import io


class WanFLF2VFetchResult(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VFetchResult",
            display_name="Wan FLF2V Fetch Result",
            category=cloud_inputs.CATEGORY,
            description="Downloads what a request made, also one from another machine, and shows it. Costs nothing.",
            inputs=[
                io.Combo.Input("provider", options=list(PROVIDERS), tooltip="The cloud that has it."),
                io.String.Input("request_id", tooltip="From the node that asked for it, or from Wan FLF2V Account."),
            ],
            outputs=cloud_inputs.outputs(),
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, provider: str | None) -> bool | str:
        return cloud_run.check_provider(provider)

    @classmethod
    def fingerprint_inputs(cls, **inputs: str) -> str:
        return cloud_run.missing_files()

    @classmethod
    async def execute(cls, provider: str, request_id: str) -> io.NodeOutput:
        if not request_id.strip():
            raise InvalidRequest(
                "request_id is empty; copy it from the node that asked for the clip, or from Wan FLF2V Account"
            )
        return await cloud_run.shown(await cloud_run.collect(provider, request_id))
