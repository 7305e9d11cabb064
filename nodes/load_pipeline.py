"""Load a whole Wan2.1 first-last-frame pipeline from one folder."""

from __future__ import annotations

from typing import Any

from ..wan_local.errors import InputError
from . import host, weight_files, widgets
from .host import io
from .loading import DTYPES, load_parts
from .sockets.model import Model

TEXT = "text_encoders"
OF_THE_FOLDER = "of the folder"


class WanFLF2VLoadPipeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="WanFLF2VLoadPipeline",
            display_name="Load Wan FLF2V Pipeline",
            category=widgets.ROOT,
            description=(
                "Loads transformer, text encoder, image encoder and VAE of a first-last-frame model from one "
                "folder: the bundled nano model, or a download in models/wan_flf2v or models/diffusers."
            ),
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=list(host.pipeline_folders()),
                    tooltip="A folder in diffusers or official layout below models/wan_flf2v or "
                    "models/diffusers, or the small model that comes with this pack.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="What the transformer's weights are kept in; default keeps what the files hold. A GPU "
                    "calculates with float32 weights in half precision, unless fp32 is chosen.",
                ),
                widgets.attention(),
                io.Combo.Input(
                    "text_encoder",
                    options=[OF_THE_FOLDER, *host.model_files(TEXT)],
                    default=OF_THE_FOLDER,
                    optional=True,
                    tooltip="Another umT5 than the folder's: a file in models/text_encoders, fp8 or GGUF to save "
                    "memory.",
                ),
                widgets.compiled(),
            ],
            outputs=[
                Model.Output("model", display_name="model"),
                io.Clip.Output("clip", display_name="clip"),
                io.ClipVision.Output("clip_vision", display_name="clip_vision"),
                io.Vae.Output("vae", display_name="vae"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, text_encoder: str = OF_THE_FOLDER, **others: Any) -> Any:
        """A folder whose files were replaced is another model."""
        path = host.pipeline_folders().get(folder)
        held = sorted((str(file), file.stat().st_mtime_ns) for file in path.rglob("*.*")) if path else None
        return held, weight_files.stamp(TEXT, text_encoder)

    @classmethod
    def execute(
        cls,
        folder: str,
        weight_dtype: str,
        attention: str,
        text_encoder: str = OF_THE_FOLDER,
        compile: bool = False,
    ) -> io.NodeOutput:
        folders = host.pipeline_folders()
        if folder not in folders:
            raise InputError(f"folder={folder!r} is not there; use one of {', '.join(folders) or 'none found'}")
        text = None if text_encoder == OF_THE_FOLDER else weight_files.path(TEXT, "text_encoder", text_encoder)
        return io.NodeOutput(*load_parts(folders[folder], weight_dtype, attention, text, compiled=compile))
