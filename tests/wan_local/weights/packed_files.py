"""Synthetic transformer files in every packed layout people have: real names, marks, dtypes and places, toy widths."""

from __future__ import annotations

import importlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.wan_local.weights.ggml_encoders import encode
from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer

CONFIG = TransformerConfig(
    dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=64, freq_dim=64, image_dim=48, image_tokens=10,
)  # fmt: skip
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
# What ComfyUI's fp8 files and the GGUF quantiser leave as it is: everything outside the blocks.
OUTSIDE = ("patch_embedding", "text_embedding", "time_embedding", "time_projection", "img_emb", "head")
META = {"format": "pt"}


def original(seed: int = 0) -> dict[str, Tensor]:
    """A transformer's weights in float32 under official names, with the spread of trained ones."""
    torch.manual_seed(seed)
    state = WanTransformer(CONFIG).state_dict()
    for name, value in state.items():
        if value.ndim == 2:
            value.normal_(0, 1.2 / value.shape[1] ** 0.5)
        elif name.endswith("bias"):
            value.normal_(0, 0.1)
        elif value.ndim == 1:
            value.normal_(1, 0.1)
        else:
            value.normal_(0, 0.2)
    return state


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether the usual tools pack this one."""
    return value.ndim == 2 and name.startswith("blocks.") and name.endswith(".weight")


def write_plain(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> Path:
    """Comfy-Org's fp16, bf16 and unscaled fp8 files: every tensor, biases and norms too, in one dtype."""
    save_file({name: value.to(dtype) for name, value in state.items()}, path, META)
    return path


def write_kijai(path: Path, state: dict[str, Tensor], dtype: torch.dtype, *, scaled: bool) -> Path:
    """Kijai's: matrices of the blocks in fp8, the rest float32; scaled ones with a scalar each and the mark."""
    tensors = {}
    for name, value in state.items():
        if not is_matrix(name, value):
            tensors[name] = value
        elif scaled:
            tensors |= _scaled(name, value, dtype, "scale_weight", ())
        else:
            tensors[name] = value.to(dtype)
    if scaled:
        tensors["scaled_fp8"] = torch.zeros(2, dtype=dtype)
    save_file(tensors, path, META)
    return path


def write_comfy_scaled(path: Path, state: dict[str, Tensor], dtype: torch.dtype, config: str = "{}") -> Path:
    """ComfyUI's older marking: behind the prefix, float16 beside it, ``scale_input`` too, an empty mark."""
    prefix = "model.diffusion_model."
    tensors = {prefix + "scaled_fp8": torch.zeros(0, dtype=dtype)}
    for name, value in state.items():
        if is_matrix(name, value):
            tensors |= _scaled(prefix + name, value, dtype, "scale_weight", (1,))
            tensors[prefix + name.removesuffix("weight") + "scale_input"] = torch.ones(())
        else:
            tensors[prefix + name] = value.half()
    save_file(tensors, path, META | {"config": config})
    return path


def write_comfy_quant(
    path: Path, state: dict[str, Tensor], dtype: torch.dtype, *, in_metadata: bool = False, wide: tuple[str, ...] = ()
) -> Path:
    """ComfyUI's newer marking: JSON for every layer, as a tensor or in the metadata; ``wide`` are layers that ask for
    wide products."""
    usual = {"format": "float8_e4m3fn" if dtype == torch.float8_e4m3fn else "float8_e5m2"}
    tensors, layers = {}, {}
    for name, value in state.items():
        if not is_matrix(name, value):
            tensors[name] = value.bfloat16()
            continue
        layer = name.removesuffix(".weight")
        tensors |= _scaled(name, value, dtype, "weight_scale", ())
        layers[layer] = form = usual | ({"full_precision_matrix_mult": True} if layer in wide else {})
        if not in_metadata:
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(form).encode()), dtype=torch.uint8)
    extra = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})} if in_metadata else {}
    save_file(tensors, path, META | extra)
    return path


def write_comfy_layout(path: Path, state: dict[str, Tensor], format: str, **how: bool) -> Path:
    """What ComfyUI's mixed precision layers save: comfy-kitchen's tensors of every layer, and its mark."""
    from comfy_kitchen.tensor import QuantizedTensor  # not everywhere

    layout = {"int8_tensorwise": "TensorWiseINT8Layout", "mxfp8": "TensorCoreMXFP8Layout",
              "nvfp4": "TensorCoreNVFP4Layout"}[format]  # fmt: skip
    mark = {"format": format} | ({"convrot": True, "convrot_groupsize": 256} if how.get("convrot") else {})
    tensors = {}
    for name, value in state.items():
        if not is_matrix(name, value):
            tensors[name] = value.bfloat16()
            continue
        tensors |= QuantizedTensor.from_float(value, layout, **how).state_dict(name)
        data = torch.tensor(list(json.dumps(mark).encode()), dtype=torch.uint8)
        tensors[name.removesuffix("weight") + "comfy_quant"] = data
    save_file(tensors, path, META)
    return path


def _kitchen() -> bool:
    try:
        importlib.import_module("comfy_kitchen.tensor")
    except Exception:  # it wants a newer torch than the oldest that this pack takes
        return False
    return True


COMFY: dict[str, dict[str, Any]] = {  # empty where nothing can write them; reading needs nothing
    "ComfyUI int8": {"format": "int8_tensorwise"},
    "ComfyUI int8 by rows": {"format": "int8_tensorwise", "per_channel": True},
    "ComfyUI int8 turned": {"format": "int8_tensorwise", "per_channel": True, "convrot": True},
    "ComfyUI mxfp8": {"format": "mxfp8"},
    "ComfyUI nvfp4": {"format": "nvfp4"},
} if _kitchen() else {}  # fmt: skip
COMFY_WRITERS = {name: partial(write_comfy_layout, **how) for name, how in COMFY.items()}


def write_rows(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> Path:
    """One scale a row, as some converters write."""
    tensors = {"scaled_fp8": torch.zeros(2, dtype=dtype)}
    for name, value in state.items():
        if is_matrix(name, value):
            scale = value.abs().amax(1, keepdim=True) / LARGEST[dtype]
            tensors[name] = (value / scale).to(dtype)
            tensors[name.removesuffix("weight") + "scale_weight"] = scale
        else:
            tensors[name] = value.bfloat16()
    save_file(tensors, path, META)
    return path


def write_gguf(
    path: Path, state: dict[str, Tensor], kind: str, *, flat_sides: bool = False, config: str = "{}"
) -> Path:
    """city96's: matrices of the blocks as ``kind`` (v and the second ffn matrix finer), the five-sided kernel float32.

    ``flat_sides`` drops leading sides of 1, as early files do.
    """
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(0)
    writer.add_string("config", config)
    for name, value in state.items():
        if not is_matrix(name, value):
            half = value.ndim == 2 and value.numel() > 1024
            data = value.half().numpy() if half else value.numpy()
            writer.add_tensor(name, data[0] if flat_sides and data.ndim == 3 else data)
            continue
        finer = name.endswith((".v.weight", "ffn.2.weight")) and kind.endswith("_K")
        used = "Q6_K" if finer else kind
        if used in ("F16", "BF16"):
            data = gguf.quants.quantize(value.numpy(), gguf.GGMLQuantizationType[used])
        else:
            data = encode(value.numpy(), used)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[used])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantized_by_gguf(path: Path) -> dict[str, Tensor]:
    """What the ``gguf`` package makes of such a file, float32."""
    return {
        tensor.name: torch.from_numpy(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in tensor.shape][::-1]).copy()
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def _scaled(name: str, value: Tensor, dtype: torch.dtype, key: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    scale = value.abs().max() / LARGEST[dtype]
    layer = name.removesuffix("weight")
    return {name: (value / scale).to(dtype), layer + key: scale.reshape(shape)}


def forward(model: WanTransformer, seed: int = 5) -> Tensor:
    """One look at a small clip, in float32."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = noise(1, CONFIG.image_tokens, CONFIG.image_dim)
    with torch.no_grad():
        return model(noise(1, CONFIG.in_dim, 3, 4, 6), torch.tensor([500.0]), noise(1, 7, CONFIG.text_dim), rows)


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest true value."""
    return float((value - truth).abs().max() / truth.abs().max())


def stored_bytes(model: torch.nn.Module) -> int:
    """What parameters and buffers take."""
    return sum(value.numel() * value.itemsize for value in (*model.parameters(), *model.buffers()))


def random_bytes(seed: int, count: int) -> bytes:
    return np.random.default_rng(seed).bytes(count)
