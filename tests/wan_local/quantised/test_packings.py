"""Block formats against the ``gguf`` package, fp8 products against bfloat16 ones."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tests.wan_local.quantised.float8_here import needs_float8_products
from tests.wan_local.weights import packed_files as files
from tests.wan_local.weights.ggml_encoders import UNENCODED, any_blocks, decode, encode
from wan_local.errors import UnreadableWeights
from wan_local.quantised import GGML, Float8, Linear, layers, matmul
from wan_local.quantised.ggml import FORMATS, packed_bytes
from wan_local.quantised.ggml_codebooks import TABLES
from wan_local.weights import load_transformer

E4M3 = torch.float8_e4m3fn
ENCODED = [kind for kind in FORMATS if kind not in UNENCODED]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinite scales
def test_every_bit_pattern_is_read_as_the_package_reads_it(kind: str) -> None:
    form, rows = FORMATS[kind], 300
    blocks = any_blocks(kind, rows)
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert size == (form.values, form.size)
    ours = GGML(shape=(rows, form.values), kind=kind).dequantize(torch.from_numpy(blocks), None, torch.float32).numpy()
    assert np.array_equal(ours, decode(blocks, kind), equal_nan=True)
    assert np.isfinite(ours).mean() > 0.95


@pytest.mark.parametrize("kind", ENCODED)
def test_the_encoders_of_these_tests_are_sound(kind: str) -> None:
    values = np.random.default_rng(2).normal(0, 0.05, (16, 512)).astype(np.float32)
    error = np.sqrt(((decode(encode(values, kind), kind) - values) ** 2).mean() / (values**2).mean())
    assert error < {"Q2_K": 0.4, "Q3_K": 0.25}.get(kind, 0.1)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_matrix_larger_than_one_piece(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = torch.from_numpy(any_blocks(kind, 40 * 512 // FORMATS[kind].values)).view(40, -1)
    whole = GGML(shape=(40, 512), kind=kind).dequantize(packed, None, torch.bfloat16)
    monkeypatch.setattr("wan_local.quantised.ggml.CHUNK", 700)
    parts = GGML(shape=(40, 512), kind=kind).dequantize(packed, None, torch.bfloat16)
    assert torch.equal(parts.view(torch.int16), whole.view(torch.int16))  # NaN is no NaN's equal
    assert packed.nbytes == packed_bytes(kind, (40, 512))


@pytest.mark.parametrize("kind", TABLES)
def test_types_with_large_tables_say_what_they_need(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the model is loaded, not at its first step."""
    path = files.write_gguf(tmp_path / "model.gguf", files.original(), kind)
    load_transformer(path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UnreadableWeights, match=rf"model.gguf.* {kind} .*pip install --upgrade gguf.*IQ4"):
        load_transformer(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_fp8_number_is_exact_in_bfloat16(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    finite = codes[torch.isfinite(codes.view(dtype).float())].view(dtype)
    packing = Float8(shape=(len(finite),), dtype=dtype)
    for wide in (torch.bfloat16, torch.float16, torch.float32):
        assert torch.equal(packing.dequantize(finite, None, wide).double(), finite.double())


@needs_float8_products
@pytest.mark.parametrize("scale", ["none", "one", "rows"])
@pytest.mark.parametrize("bias", [False, True])
def test_fp8_products_against_bfloat16_ones(scale: str, bias: bool) -> None:
    torch.manual_seed(5)
    x, weight = torch.randn(3, 35, 128).bfloat16(), torch.randn(192, 128) / 16
    scales = {"none": None, "one": weight.abs().max().view(1, 1) / 448, "rows": weight.abs().amax(1, True) / 448}[scale]
    packed = (weight / (1.0 if scales is None else scales)).to(E4M3)
    offset = torch.randn(192).bfloat16() if bias else None
    exact = torch.nn.functional.linear(
        x.double(), packed.double() * (1.0 if scales is None else scales.double()),
        None if offset is None else offset.double(),
    )  # fmt: skip
    layer = Linear(128, 192, bias=bias)
    if offset is not None:
        layer.bias.data = offset
    layer.pack(packed, Float8(shape=(192, 128), dtype=E4M3, scaled=scales is not None), scales)
    wide = layer(x)
    small = matmul.float8_linear(x, packed, scales, offset)
    assert small.shape == wide.shape
    assert small.dtype == wide.dtype == torch.bfloat16
    errors = [files.relative_error(found.double(), exact) for found in (wide, small)]
    print(f"scale {scale}, bias {bias}: largest error of bf16 {errors[0]:.1e}, of fp8 {errors[1]:.1e}")
    assert errors[0] < 0.01
    assert errors[1] < 0.05


@needs_float8_products
@pytest.mark.parametrize("scale", ["one", "rows"])
def test_parts_of_the_tokens_are_rounded_as_the_whole(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "has_float8_units", lambda device: True)
    torch.manual_seed(8)
    x, weight = torch.randn(1, 32, 64).bfloat16(), torch.randn(48, 64)
    x[:, 20] *= 37  # the largest is in the second half
    scales = {"one": weight.abs().max().view(1, 1) / 448, "rows": weight.abs().amax(1, True) / 448}[scale]
    layer = Linear(64, 48, bias=False)
    layer.pack((weight / scales).to(E4M3), Float8(shape=(48, 64), dtype=E4M3, scaled=True), scales)
    layer.float8_matmul = True
    whole, parts = layer(x), x.chunk(2, dim=1)
    assert not torch.equal(torch.cat([layer(part) for part in parts], 1), whole)
    asked = []

    def largest_of_all(amax: torch.Tensor) -> torch.Tensor:
        asked.append(amax)
        return x.abs().amax()

    layer.reduce_amax = largest_of_all
    assert torch.equal(torch.cat([layer(part) for part in parts], 1), whole)
    assert asked == [part.abs().amax() for part in parts]
    assert all(amax.shape == () and amax.dtype == x.dtype for amax in asked)


@needs_float8_products
def test_products_with_one_scale_a_row_stay_within_float16() -> None:
    torch.manual_seed(9)
    x, weight = 8 * torch.randn(32, 2048), torch.randn(64, 2048) / 50
    scales = weight.abs().amax(1, True) / 448
    packed = (weight / scales).to(E4M3)
    exact = torch.nn.functional.linear(x.double(), packed.double() * scales.double())
    small = matmul.float8_linear(x.half(), packed, scales, None)
    assert small.dtype == torch.float16
    assert torch.isfinite(small).all()
    assert files.relative_error(small.double(), exact) < 0.05


@needs_float8_products
def test_sides_the_units_can_not_take_are_multiplied_in_bfloat16() -> None:
    x, weight = torch.randn(5, 24).bfloat16(), torch.randn(10, 24).to(E4M3)
    scale = torch.full((1, 1), 0.5)
    expected = torch.nn.functional.linear(x, weight.bfloat16() * 0.5)
    assert torch.equal(matmul.float8_linear(x, weight, scale, None), expected)
    zeros = matmul.float8_linear(torch.zeros(4, 32).bfloat16(), torch.randn(16, 32).to(E4M3), None, None)
    assert torch.equal(zeros, torch.zeros(4, 16).bfloat16())


@needs_float8_products
def test_a_whole_model_in_fp8_products(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = files.original()
    path = files.write_comfy_scaled(tmp_path / "model.safetensors", state, E4M3)
    truth = files.forward(load_transformer(path, dtype=torch.float32))
    wide = files.forward(load_transformer(path, dtype=torch.bfloat16))
    model = load_transformer(path, dtype=torch.bfloat16, float8_matmul=True)
    assert torch.equal(files.forward(model), wide)  # this device has no units for it
    monkeypatch.setattr(layers, "has_float8_units", lambda device: True)
    small = files.forward(model)
    errors = [files.relative_error(found, truth) for found in (wide, small)]
    print(f"a forward against float32 on the same weights: bf16 {errors[0]:.1e}, fp8 products {errors[1]:.1e}")
    assert not torch.equal(small, wide)
    assert errors[1] < 0.15


@pytest.mark.parametrize("asked", ["a mark of two", "a layer", "a layer in the metadata", "nothing"])
def test_a_file_may_ask_for_wide_products(asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ComfyUI understands it."""
    path, state, layer = tmp_path / "model.safetensors", files.original(), "blocks.1.ffn.0"
    if asked == "a mark of two":
        files.write_kijai(path, state, E4M3, scaled=True)
    else:
        wide = () if asked == "nothing" else (layer,)
        files.write_comfy_quant(path, state, E4M3, in_metadata="metadata" in asked, wide=wide)
    monkeypatch.setattr(layers, "has_float8_units", lambda device: True)
    model = load_transformer(path, dtype=torch.bfloat16, float8_matmul=True)
    in_fp8 = {
        name
        for name, module in model.named_modules()
        if layers.multiplies_in_float8(getattr(module, "packing", None), torch.device("cpu"))
    }
    every = {name.removesuffix(".weight") for name, value in state.items() if files.is_matrix(name, value)}
    assert in_fp8 == {"a mark of two": set(), "nothing": every}.get(asked, every - {layer})
    if asked == "a mark of two":
        plain = load_transformer(path, dtype=torch.bfloat16)
        assert torch.equal(files.forward(model), files.forward(plain))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_fp8_products_on_a_gpu() -> None:
    if not matmul.has_float8_units(torch.device("cuda")):
        pytest.skip("this GPU has no fp8 units")
    x, weight = torch.randn(75, 512, device="cuda").bfloat16(), torch.randn(256, 512, device="cuda").to(E4M3)
    exact = torch.nn.functional.linear(x.double(), weight.double())
    assert files.relative_error(matmul.float8_linear(x, weight, None, None).double(), exact) < 0.05
