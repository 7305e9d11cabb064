"""From weights on disk to the values on the loaders' wires."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..wan_local import attention, weights
from ..wan_local.compiled import compile_blocks
from ..wan_local.errors import WrongModel
from ..wan_local.parallel.setup import Setup
from ..wan_local.quantised import is_packed
from ..wan_local.weights.experts import find_pair
from . import host, weight_files
from .sockets.clip import HostedCLIP
from .sockets.clip_vision import HostedCLIPVision
from .sockets.model import WanModel
from .sockets.model_experts import ExpertsModel
from .sockets.vae import HostedVAE

BAR = 100  # units of a loader's bar
DTYPES = {"default": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Choices of ``weight_dtype``; None keeps what the files hold, fp8 and GGUF too, and the others dequantize it.

What is calculated in follows, but for packed and float32 weights that are kept: the host chooses for those."""
FAST = "fp8_fast"
"""One more of a single file: keeps what it holds, and multiplies fp8 in fp8 on GPUs that can."""


def load_parts(
    folder: Path, weight_dtype: str, attention_name: str, text_encoder: Path | None = None, *, compiled: bool = False
) -> tuple[WanModel | ExpertsModel, HostedCLIP, HostedCLIPVision | None, HostedVAE]:
    """Read all networks into the host's care, both experts of Wan2.2; nothing reaches a GPU before it is used. There is
    no image encoder for a model without image branch.

    Args:
        folder: of the pipeline.
        weight_dtype: name of :data:`DTYPES`, of the transformer.
        attention_name: kernel.
        text_encoder: a file to take in the place of the folder's own; None for that.
        compiled: compile the transformer's blocks.

    Raises:
        InputError: an attention kernel that this machine does not have.
        WeightsError: a part that is missing, broken or of another model.
    """
    pair = find_pair(folder)
    load = partial(load_model, weight_dtype=weight_dtype, attention_name=attention_name, compiled=compiled)
    model: WanModel | ExpertsModel
    if pair is None:
        model = load(folder, bar=(0.0, 0.8))
    else:
        model = ExpertsModel(load(pair.high, bar=(0.0, 0.4)), load(pair.low, bar=(0.4, 0.8)), pair.boundary)
    try:
        text = weights.load_text_encoder(text_encoder or folder, tokenizer_of=folder, on_bytes=shown((0.8, 0.95)))
    except WrongModel as error:
        raise weight_files.with_node(error) from None
    raise_half_on_cpu(text.model)
    image = None
    if model.transformer.config.has_image_branch:
        image = weights.load_image_encoder(folder, on_bytes=shown((0.95, 1.0)))
        raise_half_on_cpu(image.model)
    vision = None if image is None else HostedCLIPVision(image)
    return model, HostedCLIP(text), vision, load_vae(folder, "default", bar=(1.0, 1.0))


def load_model(
    path: Path,
    weight_dtype: str,
    attention_name: str,
    *,
    compiled: bool = False,
    bar: tuple[float, float] = (0.0, 1.0),
) -> WanModel:
    """Read a transformer from a file or a pipeline folder; ``bar`` as of :func:`shown`, the rest as above."""
    attend = attention.choose(attention_name)  # before the long part
    try:
        dtype = DTYPES.get(weight_dtype)
        transformer = weights.load_transformer(
            path,
            dtype=dtype,
            operations=host.Operations,
            attend=attend,
            unpack=dtype is not None,
            float8_matmul=weight_dtype == FAST,
            on_bytes=shown(bar),
        )
    except WrongModel as error:
        raise weight_files.with_node(error) from None
    stored = None if is_packed(transformer) else stored_dtype(transformer)
    if stored == torch.float32 and dtype is None:
        stored = None  # how a release is stored; whoever wants that exact says fp32
    transformer.compute_dtype = host.compute_dtype(stored, host.compute_device())
    if compiled:
        compile_blocks(transformer)
    setup = Setup(
        path=str(path),
        gpus=1,
        dtype=str(transformer.compute_dtype).removeprefix("torch."),
        attention=attention_name,
        unpack=dtype is not None,
        float8_matmul=weight_dtype == FAST,
        compiled=compiled,
        device=host.compute_device().type,
    )
    return WanModel(transformer, setup)


def load_vae(path: Path, dtype: str, *, bar: tuple[float, float] = (0.0, 1.0)) -> HostedVAE:
    """Read a VAE from a file or a pipeline folder; ``dtype`` is what it decodes in, a name of :data:`DTYPES`, and
    ``bar`` as of :func:`shown`."""
    try:
        vae = weights.load_vae(path, dtype=torch.float32, operations=host.Operations, on_bytes=shown(bar))
    except WrongModel as error:
        raise weight_files.with_node(error) from None
    return HostedVAE(vae, DTYPES[dtype])


def shown(bar: tuple[float, float]) -> Callable[[int, int], None]:
    """An ``on_bytes`` that moves the running node's bar from one share of it to another, and hears a stop."""
    show, last = host.progress_bar(BAR), -1

    def on_bytes(there: int, total: int) -> None:
        nonlocal last
        host.stop_if_asked()
        units = round(BAR * (bar[0] + (bar[1] - bar[0]) * there / max(total, 1)))
        if units != last:  # of thousands of pieces
            last = units
            show(units, None)

    return on_bytes


def raise_half_on_cpu(module: torch.nn.Module) -> None:
    """Encoders are torch's own layers and calculate in what they are stored in; a CPU is slow at float16."""
    if host.encoder_devices()[0].type == "cpu" and stored_dtype(module) == torch.float16:
        for layer in module.modules():
            host.stop_if_asked()
            layer._apply(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, recurse=False)


def stored_dtype(module: torch.nn.Module) -> torch.dtype:
    """What most of the module's values are kept in."""
    counts: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype])
