"""Every layout of packed weights: loads, keeps its size, and calculates what its numbers say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.wan_local.weights import packed_files as files
from wan_local.model import WanTransformer
from wan_local.weights import inspect, load_transformer

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Write = Callable[[Path, dict[str, Tensor]], Path]
LAYOUTS: dict[str, tuple[Write, float]] = {  # what writes it, and the error of a forward it may have: measured * 1.5
    "fp32": (lambda p, s: files.write_plain(p, s, torch.float32), 1e-6),
    "ComfyUI fp16": (lambda p, s: files.write_plain(p, s, torch.float16), 0.001),
    "ComfyUI bf16": (lambda p, s: files.write_plain(p, s, torch.bfloat16), 0.006),
    "ComfyUI fp8 e4m3fn": (lambda p, s: files.write_plain(p, s, E4M3), 0.11),
    "ComfyUI fp8 e5m2": (lambda p, s: files.write_plain(p, s, E5M2), 0.2),
    "ComfyUI fp8 scaled": (lambda p, s: files.write_comfy_scaled(p, s, E4M3), 0.04),
    "ComfyUI comfy_quant e4m3fn": (lambda p, s: files.write_comfy_quant(p, s, E4M3), 0.04),
    "ComfyUI comfy_quant e5m2": (lambda p, s: files.write_comfy_quant(p, s, E5M2), 0.09),
    "ComfyUI comfy_quant in metadata": (lambda p, s: files.write_comfy_quant(p, s, E4M3, in_metadata=True), 0.04),
    "Kijai fp8 e4m3fn": (lambda p, s: files.write_kijai(p, s, E4M3, scaled=False), 0.05),
    "Kijai fp8 e5m2": (lambda p, s: files.write_kijai(p, s, E5M2, scaled=False), 0.08),
    "Kijai fp8 e4m3fn scaled": (lambda p, s: files.write_kijai(p, s, E4M3, scaled=True), 0.04),
    "Kijai fp8 e5m2 scaled": (lambda p, s: files.write_kijai(p, s, E5M2, scaled=True), 0.09),
    "fp8 scaled by rows": (lambda p, s: files.write_rows(p, s, E4M3), 0.05),
}
COMFY_BOUND = {"ComfyUI int8": 0.016, "ComfyUI int8 by rows": 0.012, "ComfyUI int8 turned": 0.013,
               "ComfyUI mxfp8": 0.05, "ComfyUI nvfp4": 0.13}  # fmt: skip
LAYOUTS |= {name: (write, COMFY_BOUND[name]) for name, write in files.COMFY_WRITERS.items()}
GGUF = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K")
GGUF_BOUND = {"F16": 0.001, "BF16": 0.0025, "Q8_0": 0.008, "Q6_K": 0.04, "Q5_K": 0.07, "Q5_1": 0.07, "Q5_0": 0.07,
              "Q4_K": 0.11, "Q4_1": 0.12, "Q4_0": 0.13, "Q3_K": 0.25, "Q2_K": 0.4}  # fmt: skip
for kind in GGUF:
    LAYOUTS[f"GGUF {kind}"] = (partial(files.write_gguf, kind=kind), GGUF_BOUND[kind])

ROWS: list[str] = []


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return files.original()


@pytest.mark.parametrize("kind", ["ComfyUI fp16", "ComfyUI fp8 scaled", "GGUF Q8_0"])
@pytest.mark.parametrize("unpack", [False, True])
def test_bytes_that_are_there_are_told_while_it_loads(
    kind: str, unpack: bool, tmp_path: Path, state: dict[str, Tensor]
) -> None:
    path = LAYOUTS[kind][0](tmp_path / "model.safetensors", state)
    told: list[tuple[int, int]] = []
    load_transformer(path, torch.float32, unpack=unpack, on_bytes=lambda *there: told.append(there))
    there = [there for there, _ in told]
    assert len({total for _, total in told}) == 1
    assert there == sorted(there)
    assert len(set(there)) >= len(state)  # of every tensor
    assert there[-1] == told[-1][1]


@pytest.fixture(scope="module")
def truth(state: dict[str, Tensor]) -> Tensor:
    model = WanTransformer(files.CONFIG)
    model.load_state_dict(state)
    return files.forward(model)


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """The table of all layouts; into the file that WEIGHT_TABLE names, if it names one."""
    ROWS.clear()
    yield
    head = "| layout | loads | keys | file, of fp32 | in memory, of the file | largest error |"
    told = "\n".join([head, "|---|---|---|---|---|---|", *ROWS])
    print("\n" + told)
    if target := os.environ.get("WEIGHT_TABLE"):
        page = Path(target)
        top, mark, _ = page.read_text(encoding="utf-8").partition("<!-- measured -->\n")
        page.write_text(f"{top}{mark}\n{told}\n", encoding="utf-8")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_file_stays_small_and_gives_its_numbers(
    layout: str, tmp_path: Path, state: dict[str, Tensor], truth: Tensor
) -> None:
    write, bound = LAYOUTS[layout]
    path = write(tmp_path / "model.bin", state)  # the name tells nothing
    model = load_transformer(path)
    found = inspect(path)
    assert (found.missing, found.unexpected, found.misshapen, found.error) == ((), (), (), "")
    size, kept = path.stat().st_size, files.stored_bytes(model)
    if not any(getattr(module, "packing", None) for module in model.modules()):
        model.float()  # float16 is slow on a CPU
    model.compute_dtype = torch.float32
    error = files.relative_error(files.forward(model), truth)
    full = 4 * sum(value.numel() for value in state.values())
    ROWS.append(f"| {layout} | yes | all | {size / full:.2f} | {kept / size:.2f} | {error:.1e} |")
    assert error <= bound
    assert kept <= 1.15 * size


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith("GGUF")])
def test_gguf_files_are_read_as_the_package_does(layout: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = LAYOUTS[layout][0](tmp_path / "model.gguf", state)
    reference = WanTransformer(files.CONFIG)
    reference.load_state_dict(files.dequantized_by_gguf(path))
    expected = files.forward(reference)
    kept, dequantized = load_transformer(path, torch.float32), load_transformer(path, torch.float32, unpack=True)
    kept.compute_dtype = torch.float32
    assert files.relative_error(files.forward(kept), expected) < 2e-6
    assert files.relative_error(files.forward(dequantized), expected) < 2e-6
    assert {value.dtype for value in dequantized.parameters()} == {torch.float32}


SCALED = [name for name in LAYOUTS if ("fp8" in name or "quant" in name) and "mxfp8" not in name]  # not by blocks


@pytest.mark.parametrize("layout", SCALED)
def test_fp8_files_are_the_stored_number_times_its_scale(layout: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = LAYOUTS[layout][0](tmp_path / "model.safetensors", state)
    stored = load_file(path)
    expected = {}
    for name in state:
        at = name if name in stored else "model.diffusion_model." + name
        scales = [stored.get(at.removesuffix("weight") + key) for key in ("scale_weight", "weight_scale")]
        scale = next((scale for scale in scales if scale is not None), torch.ones(()))
        expected[name] = stored[at].double() * (scale.double() if at.endswith("weight") else 1.0)
    model = load_transformer(path, dtype=torch.float32, unpack=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-6, atol=0)
    reference = files.forward(model)
    kept = load_transformer(path, dtype=torch.float32)
    assert files.relative_error(files.forward(kept), reference) < 2e-6


def test_a_bfloat16_matrix_from_fp8_is_rounded_once(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = files.write_rows(tmp_path / "model.safetensors", state, E4M3)
    exact = load_transformer(path, dtype=torch.float32, unpack=True).blocks[1].ffn[0].weight
    layer = load_transformer(path, dtype=torch.bfloat16).blocks[1].ffn[0]
    assert torch.equal(layer.matrix(torch.bfloat16), exact.bfloat16())


def test_sides_that_early_gguf_files_dropped_come_back(tmp_path: Path, state: dict[str, Tensor], truth: Tensor) -> None:
    path = files.write_gguf(tmp_path / "model.gguf", state, "F16", flat_sides=True)
    model = load_transformer(path).float()
    assert files.relative_error(files.forward(model), truth) < 0.004


def test_a_file_of_several_dtypes_runs_as_it_is(tmp_path: Path, state: dict[str, Tensor], truth: Tensor) -> None:
    path = files.write_gguf(tmp_path / "model.gguf", state, "BF16")
    model = load_transformer(path)
    assert {value.dtype for value in model.blocks[0].ffn[0].parameters()} == {torch.bfloat16, torch.float32}
    assert files.relative_error(files.forward(model), truth) < 0.05


def test_a_model_trained_in_bfloat16_runs_from_packed_weights_in_bfloat16(tmp_path: Path, state, truth) -> None:
    path = files.write_kijai(tmp_path / "model.safetensors", state, E4M3, scaled=True)
    model = load_transformer(path, dtype=torch.bfloat16)
    assert model.compute_dtype == torch.bfloat16
    assert files.relative_error(files.forward(model), truth) < 0.3
    assert model.blocks[0].ffn[0].weight.dtype == E4M3  # still packed after use
