"""Transformers in ComfyUI's int8, mxfp8 and nvfp4: whole files as comfy-kitchen reads them, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tiny
from tests.wan_local.weights import packed_files as files
from wan_local.errors import UnreadableWeights
from wan_local.weights import inspect, load_transformer

kitchen = pytest.importorskip("comfy_kitchen.tensor", reason="comfy-kitchen can't be imported here", exc_type=Exception)

LAYER = "blocks.0.ffn.0"
FORMAT = {"ComfyUI int8": "int8", "ComfyUI int8 by rows": "int8", "ComfyUI int8 turned": "int8, turned",
          "ComfyUI mxfp8": "mxfp8", "ComfyUI nvfp4": "nvfp4"}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return files.original()


@pytest.mark.parametrize("kind", files.COMFY)
def test_every_weight_is_what_comfy_kitchen_makes_of_it(kind: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path, how = files.COMFY_WRITERS[kind](tmp_path / "model.bin", state), dict(files.COMFY[kind])
    layout = {"int8_tensorwise": "TensorWiseINT8Layout", "mxfp8": "TensorCoreMXFP8Layout",
              "nvfp4": "TensorCoreNVFP4Layout"}[how.pop("format")]  # fmt: skip
    kept, dequantized = load_transformer(path, torch.float32), load_transformer(path, torch.float32, unpack=True)
    for name, value in state.items():
        if files.is_matrix(name, value):
            expected = kitchen.QuantizedTensor.from_float(value, layout, **how).dequantize()
            assert torch.equal(kept.get_submodule(name.removesuffix(".weight")).matrix(torch.float32), expected), name
        else:
            expected = value.bfloat16().float()
        assert torch.equal(dequantized.state_dict()[name], expected), name
    error = files.relative_error(files.forward(kept), files.forward(dequantized))
    assert error < 2e-6
    stored = inspect(path).stored
    assert stored[FORMAT[kind]] == sum(value.numel() for name, value in state.items() if files.is_matrix(name, value))


def test_marks_in_the_metadata_and_scales_as_bytes(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """As a converter that follows ComfyUI's guide writes them, and as old files of ComfyUI are."""
    path = files.COMFY_WRITERS["ComfyUI nvfp4"](tmp_path / "a.safetensors", state)
    tensors = load_file(path)
    layers = [name.removesuffix(".comfy_quant") for name in tensors if name.endswith(".comfy_quant")]
    moved = {name: value for name, value in tensors.items() if not name.endswith(".comfy_quant")}
    for name in [f"{layer}.weight_scale" for layer in layers]:
        moved[name] = moved[name].view(torch.uint8)
    told = {"format_version": "1.0", "layers": {layer: {"format": "nvfp4"} for layer in layers}}
    save_file(moved, tmp_path / "b.safetensors", {"_quantization_metadata": json.dumps(told)})
    one, two = (load_transformer(tmp_path / name, torch.float32) for name in ("a.safetensors", "b.safetensors"))
    assert torch.equal(one.blocks[1].ffn[2].matrix(torch.float32), two.blocks[1].ffn[2].matrix(torch.float32))


def test_layers_of_several_formats_in_one_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = files.COMFY_WRITERS["ComfyUI nvfp4"](tmp_path / "a.safetensors", state)
    tensors, fp8 = tiny.stored(path), files.write_comfy_quant(tmp_path / "b.safetensors", state, torch.float8_e4m3fn)
    mixed = {name: value for name, value in tensors.items() if not name.startswith("blocks.1.")}
    mixed |= {name: value for name, value in load_file(fp8).items() if name.startswith("blocks.1.")}
    save_file(mixed, path)
    model = load_transformer(path)
    names = {model.blocks[index].ffn[0].packing.name for index in (0, 1)}
    assert names == {"nvfp4", "fp8 e4m3fn, scaled"}


def mark(tensors: dict[str, Tensor], **said: object) -> None:
    tensors[f"{LAYER}.comfy_quant"] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("kind", "damage", "match"),
    [
        ("ComfyUI int8", lambda t: t.pop(f"{LAYER}.weight_scale"), "has no weight_scale for it"),
        ("ComfyUI int8", lambda t: t.pop(f"{LAYER}.weight"), "has no weight for it"),
        ("ComfyUI int8", lambda t: t.update({f"{LAYER}.weight_scale": torch.ones(7)}), r"is F32 of shape \[7\]"),
        ("ComfyUI int8", lambda t: t.update({f"{LAYER}.weight_scale": torch.tensor(torch.nan)}), "is not finite"),
        ("ComfyUI int8", lambda t: t.update({f"{LAYER}.weight": torch.zeros(512, 256)}), "its weight is F32"),
        ("ComfyUI int8", lambda t: t.update({f"{LAYER}.pre_quant_scale": torch.ones(256)}), "has a pre_quant_scale"),
        ("ComfyUI int8 turned", lambda t: mark(t, format="int8_tensorwise", convrot=True, convrot_groupsize=32),
         r"says that its rows of 256 are turned in groups of 32"),
        ("ComfyUI int8 turned", lambda t: mark(t, format="int8_tensorwise", convrot=True, convrot_groupsize=1024),
         r"turned in groups of 1024"),
        ("ComfyUI int8 turned", lambda t: mark(t, format="int8_tensorwise", convrot=True, convrot_groupsize="all"),
         r"turned in groups of all"),
        ("ComfyUI mxfp8", lambda t: t.update({f"{LAYER}.weight_scale": torch.zeros(512, 4, dtype=torch.uint8)}),
         r"its weight_scale is U8 of shape \[512, 4\], which does not fit 512 rows of 256"),
        ("ComfyUI mxfp8", lambda t: t.update({f"{LAYER}.weight_scale": torch.ones(512, 8)}), r"weight_scale is F32"),
        ("ComfyUI nvfp4", lambda t: t.pop(f"{LAYER}.weight_scale_2"), "has no weight_scale_2 for it"),
        ("ComfyUI nvfp4", lambda t: t.update({f"{LAYER}.weight_scale_2": torch.ones(2)}), r"weight_scale_2 is F32"),
        ("ComfyUI nvfp4", lambda t: t.update({f"{LAYER}.weight": torch.zeros(512, 9, dtype=torch.uint8)}),
         "which does not fit 512 rows of 18"),
        ("ComfyUI nvfp4", lambda t: mark(t, format="mxfp8"), "its weight is U8"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_their_mark(kind, damage, match: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = files.COMFY_WRITERS[kind](tmp_path / "model.safetensors", state)
    tensors = tiny.stored(path)
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(UnreadableWeights, match=match) as caught:
        load_transformer(path)
    assert str(caught.value).isprintable()
    assert f"marks {LAYER} as" in str(caught.value)
