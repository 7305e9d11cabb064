"""What a cloud says of one's account."""

from __future__ import annotations

import json
import time
from textwrap import indent

from ..wan_remote.account import WHAT, account
from ..wan_remote.providers import PROVIDERS
from . import cloud_inputs, cloud_run, host
from .host import io
from .progress import CODE

ACCOUNTING = ", ".join(cloud.label for cloud in PROVIDERS.values() if "billings" in cloud.questions({}))


class WanFLF2VAccount(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VAccount",
            display_name="Wan FLF2V Account",
            category=cloud_inputs.CATEGORY,
            description="Asks a cloud for requests, models, balance, price or billings, and shows the JSON it gives. "
            "Costs nothing.",
            inputs=[
                io.Combo.Input("provider", options=list(PROVIDERS), tooltip="The cloud to ask."),
                io.Combo.Input(
                    "what",
                    options=list(WHAT),
                    default=WHAT[0],
                    tooltip="requests: made with this key; models, model: what is offered; balance, price and "
                    f"billings (what clips did cost): {ACCOUNTING} only.",
                ),
            ],
            outputs=[io.String.Output("info", display_name="info")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, provider: str | None) -> bool | str:
        return cloud_run.check_provider(provider)

    @classmethod
    def fingerprint_inputs(cls, provider: str, what: str) -> float:
        """An account changes by itself."""
        return time.time()

    @classmethod
    async def execute(cls, provider: str, what: str) -> io.NodeOutput:
        found = await cloud_run.listening(account(provider, what, keys=cloud_run.keys(), watch=cloud_run.NodeWatch()))
        text = json.dumps(found, indent=2, ensure_ascii=False)
        host.show_text(indent(text, CODE))  # the page draws nothing of the ui
        return io.NodeOutput(text, ui={"text": [text]})
