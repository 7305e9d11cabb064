"""Weights into networks: meta model, tensors one at a time from the mapped file, every name accounted for.

No second copy of the weights is ever whole in memory: a tensor is converted and put in its place before the next one
is read, and one that needs no conversion stays mapped.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..config import VAEConfig
from ..errors import ParameterMismatch, UnreadableWeights
from ..model import WanTransformer
from ..vae import WanVAE
from . import detect
from .formats import FORMATS
from .source import DTYPES, TensorSource

AnyPath = str | PathLike[str]
Network = TypeVar("Network", bound=nn.Module)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHOWN = 3  # names an error shows of each kind
QUANTISED = ("scaled_fp8", "comfy_quant", "scale_weight", "weight_scale", "scale_input")


def load_transformer(
    path: AnyPath,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Any = nn,
    attend: Any = None,
) -> WanTransformer:
    """Load a first-last-frame or image-to-video transformer.

    Args:
        path: a pipeline folder (diffusers or official), a transformer folder, or a single file.
        dtype: of the weights; None keeps what is stored.
        device: where the weights go.
        operations: layer classes, see :class:`wan_local.model.WanTransformer`.
        attend: attention kernel, see there.

    Raises:
        UnreadableWeights: missing, cut short, broken or quantised.
        WrongModel: another model, with what it is.
        ParameterMismatch: missing, unexpected or misshapen parameters.
    """
    source = detect.canonical(open_source(path, "transformer"))
    found = detect.kind(source)
    if found not in ("FLF2V transformer", "I2V transformer"):
        raise detect.wrong(source, found, needed("transformer", found))
    check_dtypes(source)
    config = detect.transformer_config(source)
    with torch.device("meta"):
        model = WanTransformer(config, operations=operations, attend=attend)
    return fill(model, source, dtype, device)


def load_vae(
    path: AnyPath, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", operations: Any = nn
) -> WanVAE:
    """Load a Wan-VAE; ``dtype`` None is float32, which encoding needs. Arguments and errors as above."""
    source = detect.canonical(open_source(path, "vae"))
    found = detect.kind(source)
    if found != "Wan-VAE":
        raise detect.wrong(source, found, needed("vae", found))
    check_dtypes(source)
    config: VAEConfig = detect.vae_config(source)
    with torch.device("meta"):
        vae = WanVAE(config, operations=operations)
    return fill(vae, source, dtype or torch.float32, device)


def open_source(path: AnyPath, part: str) -> TensorSource:
    """Open a file or folder in whichever format it is.

    Raises:
        UnreadableWeights: nothing there, or nothing readable.
    """
    place = Path(path)
    if not place.exists():
        raise UnreadableWeights(f"{place} is not there; check the path")
    for layout in FORMATS:
        source = layout.open_part(place, part)
        if source is not None and source.entries:
            return source
    raise UnreadableWeights(
        f"{place} holds no {part.replace('_', ' ')} in a layout known here; give a diffusers folder, the official "
        "folder, or a .safetensors or .pth file"
    )


def fill(model: Network, source: TensorSource, dtype: torch.dtype | None, device: torch.device | str) -> Network:
    """Put the source's tensors into a model built on the meta device; frozen and ready to evaluate."""
    check_parameters(source, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    state = {}
    for name in model.state_dict():
        tensor = source.entries[name].read()
        state[name] = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def check_parameters(source: TensorSource, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise :class:`ParameterMismatch` unless the source has exactly the expected names and shapes."""
    missing = tuple(name for name in expected if name not in source.entries)
    unexpected = tuple(name for name in source.entries if name not in expected)
    misshapen = tuple(
        (name, source.entries[name].shape, shape)
        for name, shape in expected.items()
        if name in source.entries and source.entries[name].shape != shape
    )
    if not (missing or unexpected or misshapen):
        return
    sized = [f"{name} is {list(there)}, not {list(here)}" for name, there, here in misshapen]
    counted = [
        f"{len(rows)} {what} ({', '.join(rows[:SHOWN])}{', ...' if len(rows) > SHOWN else ''})"
        for what, rows in (("missing", missing), ("unexpected", unexpected), ("misshapen", sized))
        if rows
    ]
    raise ParameterMismatch(
        f"{source.path} does not fit the model: parameters {', '.join(counted)}; use an unmodified file of this model",
        missing=missing,
        unexpected=unexpected,
        misshapen=misshapen,
    )


def check_dtypes(source: TensorSource) -> None:
    """Raise :class:`UnreadableWeights` for quantised weights, which are not plain numbers."""
    marks = [name for name in source.entries if name.rsplit(".", 1)[-1] in QUANTISED]
    others = [
        f"{name} is {entry.dtype}" for name, entry in source.entries.items() if DTYPES.get(entry.dtype) not in FLOATS
    ]
    if marks or others:
        shown = (marks or others)[0]
        raise UnreadableWeights(f"{source.path} is quantised ({shown}); use the fp16, bf16 or fp32 file of this model")


def needed(part: str, found: str) -> str:
    """What to say to someone who gave ``found`` where ``part`` was asked for."""
    if found == "Wan-VAE":
        return "load it with load_vae, and give an FLF2V transformer here"
    if "transformer" in found and part == "vae":
        return "load it with load_transformer, and give the Wan2.1 VAE here"
    if part == "vae":
        return "give the Wan2.1 VAE, such as Wan2.1_VAE.pth or wan_2.1_vae.safetensors"
    return "give Wan2.1 FLF2V weights (36 input channels), such as Wan2.1-FLF2V-14B-720P"


__all__ = ["check_dtypes", "check_parameters", "fill", "load_transformer", "load_vae", "open_source"]
