"""Packed files that lie: each is refused on one line that says what is wrong and what to do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import tiny
from tests.wan_local.weights import packed_files as files
from wan_local.errors import ParameterMismatch, UnreadableWeights, WeightsError, WrongModel
from wan_local.weights import inspect, load_transformer
from wan_local.weights.formats import gguf_file

E4M3 = torch.float8_e4m3fn
LAYER = "blocks.0.ffn.0"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return files.original()


def refused(path: Path, match: str, kind: type[WeightsError] = UnreadableWeights) -> None:
    with pytest.raises(kind, match=match) as caught:
        load_transformer(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# -- fp8 -------------------------------------------------------------------------------------------------


@pytest.fixture
def scaled(tmp_path: Path, state: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    path = files.write_kijai(tmp_path / "model.safetensors", state, E4M3, scaled=True)
    return path, tiny.stored(path)


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.pop(name)


def with_scale(value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(f"{LAYER}.scale_weight", value)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (without(f"{LAYER}.scale_weight"), r"marked as scaled fp8, and 1 fp8 tensors have no scale \(blocks.0"),
        (without(f"{LAYER}.weight"), r"has blocks.0.ffn.0.scale_weight and no blocks.0.ffn.0.weight"),
        (with_scale(torch.ones(7)), r"scale for blocks.0.ffn.0.weight of shape \[7\], which is neither .* row \(512"),
        (with_scale(torch.ones(512, 2)), r"of shape \[512, 2\], which is neither"),
        (with_scale(torch.ones(512, 1, 1)), r"of shape \[512, 1, 1\], which is neither"),
        (with_scale(torch.tensor(float("nan"))), r"has a scale for blocks.0.ffn.0.weight that is nan; download"),
        (with_scale(torch.tensor(float("inf"))), r"that is inf"),
        (with_scale(torch.tensor(0.0)), r"that is 0"),
        (with_scale(torch.tensor(-1.0)), r"that is -1"),
        (with_scale(torch.ones((), dtype=torch.int32)), r"a scale for blocks.0.ffn.0.weight that is I32"),
        (lambda t: t.__setitem__(f"{LAYER}.weight", torch.zeros(512, 256).half()), r"which is F16 and not fp8"),
        (lambda t: t.__setitem__(f"{LAYER}.weight", torch.zeros(512, 255).to(E4M3)), r"1 misshapen"),
    ],
)  # fmt: skip
def test_mis_scaled_fp8(scaled: tuple[Path, dict[str, Tensor]], damage, match: str) -> None:
    path, tensors = scaled
    damage(tensors)
    save_file(tensors, path)
    refused(path, match, WeightsError)


@pytest.mark.parametrize("format", ["convrot_w4a4", "asym_w4a8_int8", 7, None])
def test_a_quantisation_not_known_here(tmp_path: Path, state: dict[str, Tensor], format: object) -> None:
    path = files.write_comfy_quant(tmp_path / "model.safetensors", state, E4M3)
    tensors = tiny.stored(path)
    mark = json.dumps({"format": format}).encode()
    tensors[f"{LAYER}.comfy_quant"] = torch.tensor(list(mark), dtype=torch.uint8)
    save_file(tensors, path)
    refused(path, rf"is quantised as {format} \(in blocks.0.ffn.0\), which can't be read here; use the fp8, GGUF")


@pytest.mark.parametrize("mark", [b"{", b"\xff\xfe", b"[]", b'"fp8"', b"[" * 2000])
def test_a_broken_mark(tmp_path: Path, state: dict[str, Tensor], mark: bytes) -> None:
    path = files.write_comfy_quant(tmp_path / "model.safetensors", state, E4M3)
    tensors = tiny.stored(path)
    tensors[f"{LAYER}.comfy_quant"] = torch.tensor(list(mark), dtype=torch.uint8)
    save_file(tensors, path)
    refused(path, "is quantised as None|which is no JSON")


def test_a_marked_layer_without_a_scale(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = files.write_comfy_quant(tmp_path / "model.safetensors", state, E4M3)
    tensors = tiny.stored(path)
    del tensors[f"{LAYER}.weight_scale"]
    save_file(tensors, path)
    refused(path, "marks blocks.0.ffn.0 as fp8, and has no scale for it")


@pytest.mark.parametrize("metadata", ["{", "[]", '{"layers": 3}', '{"layers": {"a": 1}}'])
def test_broken_quantisation_metadata(tmp_path: Path, state: dict[str, Tensor], metadata: str) -> None:
    save_file(state, tmp_path / "model.safetensors", {"_quantization_metadata": metadata})
    refused(tmp_path / "model.safetensors", "no JSON|without layers|is quantised as None")


def test_the_same_parameter_under_two_names(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = files.write_kijai(tmp_path / "model.safetensors", state, E4M3, scaled=True)
    tensors = tiny.stored(path)
    tensors["model.diffusion_model.blocks.0.norm3.weight"] = tensors["blocks.0.norm3.weight"].clone()
    save_file(tensors, path)
    refused(path, "which are the same parameter", ParameterMismatch)


@pytest.mark.parametrize("kind", ["T2V", "I2V"])
def test_other_wan_models_packed(tmp_path: Path, state: dict[str, Tensor], kind: str) -> None:
    changed = {name: value for name, value in state.items() if name != "img_emb.emb_pos"}
    if kind == "T2V":
        changed = {name: value for name, value in changed.items() if "img" not in name}
        changed["patch_embedding.weight"] = changed["patch_embedding.weight"][:, :16].contiguous()
    path = files.write_kijai(tmp_path / "model.safetensors", changed, E4M3, scaled=True)
    if kind == "T2V":
        refused(path, "is a T2V transformer: 16 input channels", WrongModel)
    else:  # takes first and last frame, without positions of its own
        assert inspect(path).kind == "I2V transformer"
        assert load_transformer(path).config.image_tokens == 0


# -- GGUF ------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    return files.write_gguf(tmp_path / "model.gguf", state, "Q8_0")


def place_of(path: Path, name: str) -> int:
    """Where in the file the row of a tensor starts, behind its name."""
    data = path.read_bytes()
    key = struct.pack("<Q", len(name)) + name.encode()
    assert data.count(key) == 1
    return data.index(key) + len(key)


def patch(path: Path, at: int, form: str, *values: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, *values)
    path.write_bytes(data)


MATRIX = LAYER + ".weight"  # [512, 256]: sides, two sides of 8 bytes, type, place


@pytest.mark.parametrize(
    ("at", "form", "value", "match"),
    [
        (24, "<Q", 2**40, r"cut short \(blocks.0.ffn.0.weight ends at byte 1,099,"),
        (24, "<Q", 2**64 - 1, r"cut short"),
        (24, "<Q", 0, r"broken header .*overlaps the tensor before it"),
        (20, "<I", 200, r"broken header \(blocks.0.ffn.0.weight has the unknown type 200"),
        (4, "<Q", 100, r"rows of 100 values are no whole Q8_0 blocks of 32"),
        (4, "<Q", 2**62, r"cut short"),
        (12, "<Q", 2**62, r"cut short"),
        (0, "<I", 9, r"has 9 sides"),
        (0, "<I", 2**31, r"has 2147483648 sides"),
    ],
)  # fmt: skip
def test_bad_gguf_rows(packed: Path, at: int, form: str, value: int, match: str) -> None:
    start = place_of(packed, MATRIX)
    patch(packed, start + at, form, value)
    refused(packed, match, WeightsError)


@pytest.mark.parametrize(
    ("at", "form", "value", "match"),
    [
        (4, "<I", 1, r"it is version 1; versions 2 and 3, little-endian, can be read"),
        (4, ">I", 3, r"it is big-endian"),
        (8, "<Q", 2**63, r"cut short|broken header"),
        (16, "<Q", 2**63, r"cut short|broken header"),
        (24, "<Q", 2**62, r"header needs 4,611,686,018,427,387,904 bytes"),
    ],
)
def test_bad_gguf_heads(packed: Path, at: int, form: str, value: int, match: str) -> None:
    patch(packed, at, form, value)
    refused(packed, match)


def test_gguf_cut_short(packed: Path) -> None:
    data = packed.read_bytes()
    for length in (4, 9, 30, 500, len(data) // 2, len(data) - 1):
        packed.write_bytes(data[:length])
        refused(packed, "is cut short")
        with pytest.raises(UnreadableWeights, match="is cut short"):
            inspect(packed)


def test_gguf_with_twins_and_odd_alignment(tmp_path: Path, packed: Path) -> None:
    data = packed.read_bytes()
    one, two = b"blocks.0.ffn.0.weight", b"blocks.0.ffn.2.weight"
    packed.write_bytes(data.replace(one, two))
    refused(packed, r"broken header \(blocks.0.ffn.2.weight stands there twice")
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", arch="wan")
    writer.add_int32("general.alignment", -5)
    writer.add_tensor("a", np.zeros(4, np.float32))
    writer.data_alignment = 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "odd.gguf", "general.alignment is -5")


def test_metadata_of_every_type_is_passed_over(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "talkative.gguf"
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_array("tokens", ["a", "b"] * 40)
    writer.add_array("numbers", list(range(1000)))
    writer.add_float64("pi", 3.14)
    writer.add_bool("yes", True)
    writer.add_uint64("large", 2**63)
    writer.add_string("config", json.dumps({"attention_head_dim": 64}))
    writer.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    entries, metadata = gguf_file.read_header(path)
    assert entries["a"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert metadata["pi"] == 3.14
    assert metadata["large"] == 2**63
    assert json.loads(metadata["config"]) == {"attention_head_dim": 64}


def test_a_text_encoder_from_llama_cpp_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "umt5.gguf", arch="t5encoder")
    writer.add_tensor("enc.blk.0.attn_q.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "umt5.gguf", "is a T5 text encoder in llama.cpp's layout", WrongModel)


# -- headers that claim too much -----------------------------------------------------------------------------


def test_a_safetensors_header_of_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**42) + b'{"a": 1}')
    refused(path, "is not a safetensors file")
    row = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    text = json.dumps({"patch_embedding.weight": row}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    refused(path, "is cut short: its data needs 4,398,046,511,")
