"""From a pipeline folder to the four values on the loader's wires."""

from __future__ import annotations

from pathlib import Path

import torch

from ..wan_local import attention, weights
from . import host
from .clip import PipelineCLIP
from .clip_vision import PipelineCLIPVision
from .sockets import WanModel
from .vae import PipelineVAE

DTYPES = {"default": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Choices of ``weight_dtype``; None keeps what the files hold."""


def load_parts(
    folder: Path, weight_dtype: str, attention_name: str
) -> tuple[WanModel, PipelineCLIP, PipelineCLIPVision, PipelineVAE]:
    """Read all four networks into the host's care; nothing reaches a GPU before it is used.

    Raises:
        InputError: an attention kernel that this machine does not have.
        WeightsError: a part that is missing, broken or of another model.
    """
    attend = attention.choose(attention_name)  # before the long part
    operations = host.operations()
    transformer = weights.load_transformer(
        folder, dtype=DTYPES[weight_dtype], operations=operations, attend=attend
    )
    transformer.compute_dtype = host.compute_dtype(stored_dtype(transformer), host.compute_device())
    vae = weights.load_vae(folder, dtype=torch.float32, operations=operations)
    text, image = weights.load_text_encoder(folder), weights.load_image_encoder(folder)
    for encoder in (text, image):
        raise_half_on_cpu(encoder.model)
    return WanModel(transformer), PipelineCLIP(text), PipelineCLIPVision(image), PipelineVAE(vae)


def raise_half_on_cpu(module: torch.nn.Module) -> None:
    """Encoders are torch's own layers and calculate in what they are stored in; a CPU is slow at float16."""
    if host.encoder_devices()[0].type == "cpu" and stored_dtype(module) == torch.float16:
        module.float()


def stored_dtype(module: torch.nn.Module) -> torch.dtype:
    """What most of the module's values are kept in."""
    counts: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype])
