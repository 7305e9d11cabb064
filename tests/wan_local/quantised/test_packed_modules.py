"""Packed layers under what people do with modules: casts, moves, copies, state dicts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.weights import packed_files as files
from wan_local.quantised import Linear
from wan_local.weights import load_transformer

E4M3 = torch.float8_e4m3fn
FILES = {
    "fp8": lambda path: files.write_kijai(path, files.original(), E4M3, scaled=False),
    "fp8 scaled": lambda path: files.write_comfy_scaled(path, files.original(), torch.float8_e5m2),
    "fp8 scaled by rows": lambda path: files.write_rows(path, files.original(), E4M3),
    "GGUF Q4_K": lambda path: files.write_gguf(path, files.original(), "Q4_K"),
    **{name: lambda path, write=write: write(path, files.original()) for name, write in files.COMFY_WRITERS.items()},
}


def packed_layers(model: torch.nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.packing is not None]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("cast", ["bfloat16", "half", "float", "double"])
def test_a_cast_leaves_packed_weights_packed(kind: str, cast: str, tmp_path: Path) -> None:
    path = FILES[kind](tmp_path / "model")
    model, before = load_transformer(path, torch.float32), load_transformer(path, torch.float32)
    getattr(model, cast)()
    wanted = getattr(torch.empty(1), cast)().dtype
    assert model.blocks[0].modulation.dtype == wanted
    pairs = list(zip(packed_layers(model), packed_layers(before), strict=True))
    assert pairs
    for ours, theirs in pairs:
        assert ours.weight.dtype == theirs.weight.dtype
        assert torch.equal(ours.weight.view(torch.uint8), theirs.weight.view(torch.uint8))
        assert (ours.scale is None) == (theirs.scale is None)
        assert ours.scale is None or (ours.scale.dtype == theirs.scale.dtype and torch.equal(ours.scale, theirs.scale))
    assert files.relative_error(files.forward(model).float(), files.forward(before)) < 0.1


@pytest.mark.parametrize("kind", FILES)
def test_a_move_takes_packed_weights_along(kind: str, tmp_path: Path) -> None:
    model = load_transformer(FILES[kind](tmp_path / "model"))
    before = [None if layer.scale is None else layer.scale.dtype for layer in packed_layers(model)]
    assert set(before) <= {None, torch.float32, torch.uint8}
    model.to("meta", torch.float16)
    for layer, dtype in zip(packed_layers(model), before, strict=True):
        assert layer.weight.device.type == "meta"
        assert layer.scale is None or (layer.scale.device.type == "meta" and layer.scale.dtype == dtype)


@pytest.mark.parametrize("kind", ["fp8", "fp8 scaled", "fp8 scaled by rows"])
def test_a_state_dict_is_a_model_file(kind: str, tmp_path: Path) -> None:
    model = load_transformer(FILES[kind](tmp_path / "model"), torch.float32)
    save_file(model.state_dict(), tmp_path / "again.safetensors")
    again = load_transformer(tmp_path / "again.safetensors", torch.float32)
    expected = files.forward(model)
    assert files.relative_error(files.forward(again), expected) < 1e-5  # kernels choose by where memory begins
    other = copy.deepcopy(model)
    for layer in packed_layers(other):
        layer.weight.data.view(torch.uint8).zero_()
        if layer.scale is not None:
            layer.scale.zero_()
    assert files.relative_error(files.forward(other), expected) > 0.1
    other.load_state_dict(model.state_dict())
    assert files.relative_error(files.forward(other), expected) < 1e-5
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name].view(torch.uint8), value.view(torch.uint8)), name
