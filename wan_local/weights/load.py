"""Weights into networks: meta model, tensors one at a time from the mapped file, every name accounted for.

No second copy of the weights is ever whole in memory: a tensor is converted and put in its place before the next one
is read, its pages of the file are given back, and one that needs no conversion stays mapped. Packed weights (fp8,
GGUF) stay packed and are dequantized layer by layer when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..attention import Attend
from ..errors import UnreadableWeights
from ..free_memory import check_host_room
from ..model import WanTransformer
from ..operations import Convolutions, Operations
from ..quantised import CastingLayers
from ..vae import WanVAE
from . import detect, packed, refused, sizes
from .fit import check_dtypes, fitted
from .formats import FORMATS
from .place import place, place_packed
from .source import DTYPES, Entry, TensorSource, not_importable, reason, shown

AnyPath = str | PathLike[str]
Network = TypeVar("Network", bound=nn.Module)
OnBytes = Callable[[int, int], None]


def load_transformer(
    path: AnyPath,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Operations = nn,
    attend: Attend | None = None,
    *,
    unpack: bool = False,
    float8_matmul: bool = False,
    on_bytes: OnBytes | None = None,
) -> WanTransformer:
    """Load a first-last-frame or image-to-video transformer.

    Args:
        path: a pipeline folder (diffusers or official), a transformer folder, or a single file.
        dtype: of the weights; None keeps what is stored. Packed weights (fp8, GGUF) stay packed, and are calculated
            with in this dtype, by default bfloat16; what is not packed in their file then stays as stored.
        device: where the weights go.
        operations: layer classes, see :class:`wan_local.model.WanTransformer`; for packed weights they need a
            ``Linear`` with the ``pack`` of :class:`wan_local.quantised.Linear`, which torch's are replaced by.
        attend: attention kernel, see there.
        unpack: make plain weights of ``dtype`` out of packed ones: faster steps, more memory.
        float8_matmul: multiply fp8 e4m3 weights in fp8, and int8 ones in int8, where the device can: faster, and less
            exact.
        on_bytes: called with the bytes that are there and with those of all; what it raises ends the loading.

    Raises:
        UnreadableWeights: missing, cut short, broken, or quantised in a way not known here.
        WrongModel: another model, with what it is; or a config that contradicts the weights.
        ParameterMismatch: missing or misshapen parameters. What belongs to no layer is a notice (``notices.py``).
    """
    return build_transformer(
        transformer_source(path),
        dtype,
        device,
        operations,
        attend,
        unpack=unpack,
        float8_matmul=float8_matmul,
        on_bytes=on_bytes,
    )


def build_transformer(
    source: TensorSource,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Operations = nn,
    attend: Attend | None = None,
    *,
    unpack: bool = False,
    float8_matmul: bool = False,
    on_bytes: OnBytes | None = None,
) -> WanTransformer:
    """As :func:`load_transformer`, of what :func:`transformer_source` opened."""
    check_dtypes(source)
    config = sizes.transformer_config(source)
    keep = source.packed and not unpack
    layers = CastingLayers if operations is nn and (keep or (dtype is None and _is_mixed(source))) else operations
    model = build(source, "Wan transformer", lambda: WanTransformer(config, operations=layers, attend=attend))
    if keep:
        model.compute_dtype = dtype or torch.bfloat16
        dtype = None
    fill(model, source, dtype, device, keep_packed=keep, on_bytes=on_bytes)
    module: Any
    for module in model.modules():
        if hasattr(module, "pack"):  # ours, or a host's
            module.float8_matmul = float8_matmul
    return model


def _is_mixed(source: TensorSource) -> bool:
    """Whether some layer's weight and bias differ in dtype, which torch's own layers can't calculate with."""
    biases = ((f"{name.removesuffix('.weight')}.bias", entry) for name, entry in source.entries.items())
    return any(name in source.entries and source.entries[name].dtype != entry.dtype for name, entry in biases)


def load_vae(
    path: AnyPath,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Convolutions = nn,
    *,
    on_bytes: OnBytes | None = None,
) -> WanVAE:
    """Load a Wan-VAE; ``dtype`` None is float32, which encoding needs. Arguments and errors as above."""
    source = vae_source(path)
    check_dtypes(source)
    config = sizes.vae_config(source)
    vae = build(source, "Wan-VAE", lambda: WanVAE(config, operations=operations))
    return fill(vae, source, dtype or torch.float32, device, on_bytes=on_bytes)


def transformer_source(path: AnyPath) -> TensorSource:
    """The transformer's tensors under the names of the official code.

    Raises:
        UnreadableWeights, WrongModel: as for :func:`load_transformer`.
    """
    source = detect.canonical(open_source(path, "transformer"))
    found = detect.kind(source)
    if found not in detect.LOADABLE:
        raise detect.wrong(source, found, needed("transformer", found))
    return source


def vae_source(path: AnyPath) -> TensorSource:
    """The same of a Wan-VAE."""
    source = detect.canonical(open_source(path, "vae"), "vae")
    found = detect.kind(source)
    if found != detect.VAE:
        raise detect.wrong(source, found, needed("vae", found))
    return source


def open_source(path: AnyPath, part: str) -> TensorSource:
    """Open a file or folder in whichever format it is.

    Raises:
        UnreadableWeights: nothing there, or nothing readable.
        WrongModel: a folder whose config names another model.
    """
    source = find_source(path, part)
    if source is None:
        raise UnreadableWeights(
            f"{path} holds no {part.replace('_', ' ')} in a layout known here; give a diffusers folder, the official "
            "folder, or a .safetensors, .pth or .gguf file"
        )
    return source


def find_source(path: AnyPath, part: str) -> TensorSource | None:
    """As :func:`open_source`, but None if the part is simply not there."""
    place = Path(path)
    try:
        if not place.exists():
            raise UnreadableWeights(f"{place} is not there; check the path")
        for layout in FORMATS:
            source = layout.open_part(place, part)
            if source is not None and source.entries:
                refused.check(source)
                return packed.combine(source)
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else place
        told = error.strerror or reason(error)
        raise UnreadableWeights(f"{named} can't be read ({told}); check its permissions") from error
    except ValueError as error:  # a path that no file can have
        raise UnreadableWeights(f"{shown(str(place))} is no path ({reason(error)}); check it") from error
    return None


def build(source: TensorSource, what: str, make: Callable[[], Network]) -> Network:
    """A model on the meta device; sizes that make none are an error of the weights, not of torch.

    Raises:
        WrongModel: such sizes.
        WeightsError: the library whose model it is can't be imported.
    """
    try:
        with torch.device("meta"):
            return make()
    except ImportError as error:  # transformers brings its models in when they are first asked for
        raise not_importable(source.path, "transformers", error) from error
    except Exception as error:  # torch and transformers each have their own
        raise sizes.impossible(source, what, error) from error


def fill(
    model: Network,
    source: TensorSource,
    dtype: torch.dtype | None,
    device: torch.device | str,
    *,
    tied: Collection[str] = (),
    wide: Collection[str] = (),
    keep_packed: bool = False,
    on_bytes: OnBytes | None = None,
) -> Network:
    """Put the source's tensors into a model built on the meta device; frozen and ready to evaluate.

    Args:
        model: on the meta device.
        source: its parameters; what else it has is told and left.
        dtype: of the result; None keeps what is stored, and dequantizes to float32.
        device: where the result goes.
        tied: parameters that the caller points at others; they are in the model, but not in the source.
        wide: parameters that are float32 where the others are float16.
        keep_packed: leave packed weights packed where the layer can hold them.
        on_bytes: see :func:`load_transformer`.

    Raises:
        ParameterMismatch: missing or misshapen parameters.
        WrongModel: the model's layers hold layers that it does not have.
        UnreadableWeights: a tensor that can't be read.
        OutOfMemory: what has to be converted is more than the host has room for.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    source = fitted(source, expected)
    if torch.device(device).type == "cpu":
        converted = sum(_converted(entry, dtype, keep_packed) for entry in source.entries.values())
        check_host_room(converted, str(source.path), dtype)
    total = sum(entry.bytes for entry in source.entries.values())
    there = 0

    def came(size: int) -> None:
        nonlocal there
        there = min(there + size, total)
        if on_bytes is not None:
            on_bytes(there, total)

    state = {}
    for name in expected:
        entry = source.entries[name]
        layer: Any = model.get_submodule(name.rpartition(".")[0])
        if keep_packed and entry.packing is not None and name.endswith(".weight") and hasattr(layer, "pack"):
            scale = entry.scale().to(device) if entry.scale else None
            layer.pack(place_packed(entry, device, came), entry.packing, scale)
        else:
            narrow = name in wide and (dtype or DTYPES.get(entry.dtype)) == torch.float16
            state[name] = place(entry, torch.float32 if narrow else dtype, device, came)
    model.load_state_dict(state, assign=True, strict=False)  # the names are checked above
    return model.requires_grad_(False).eval()


def _converted(entry: Entry, dtype: torch.dtype | None, keep_packed: bool) -> int:
    """Bytes that a tensor takes beside its file."""
    size, changed = entry.loaded(dtype)
    return size if changed and not (keep_packed and entry.packing is not None) else 0


COMFY = "Comfy-Org/Wan_2.1_ComfyUI_repackaged on huggingface.co"
WANTED = {
    "transformer": "Wan2.1 FLF2V weights (36 input channels), such as wan2.1_flf2v_720p_14B_fp16.safetensors of "
    f"{COMFY}, or Wan-AI/Wan2.1-FLF2V-14B-720P",
    "vae": f"the Wan2.1 VAE, such as Wan2.1_VAE.pth or wan_2.1_vae.safetensors of {COMFY}",
    "text_encoder": f"umT5-xxl, such as umt5_xxl_fp16.safetensors of {COMFY}, a pipeline folder, or the official "
    "folder with models_t5_umt5-xxl-enc-bf16.pth",
    "image_encoder": f"CLIP ViT-H/14, such as clip_vision_h.safetensors of {COMFY}, a pipeline folder, or the "
    "official folder with its models_clip_*.pth",
}
USABLE_AS = {
    **dict.fromkeys(detect.LOADABLE, "transformer"),
    detect.VAE: "VAE",
    detect.OTHERS["encoder.block.0.layer.0.SelfAttention.q.weight"]: "text encoder",
    detect.OTHERS["token_embedding.weight"]: "text encoder",
    detect.OTHERS["enc.blk.0.attn_q.weight"]: "text encoder",
    detect.OTHERS["embeddings.patch_embedding.weight"]: "image encoder",
    detect.OTHERS["visual.patch_embedding.weight"]: "image encoder",
}


def needed(part: str, found: str) -> str:
    """What to say to someone who gave ``found`` where ``part`` was asked for."""
    role = USABLE_AS.get(found)
    return f"use it as the {role}, and give {WANTED[part]} here" if role else f"give {WANTED[part]}"


__all__ = ["build", "fill", "find_source", "load_transformer", "load_vae", "needed", "open_source"]
