"""LoRAs beside the weights: the same as merged, on plain and packed weights, and off without a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.wan_local.parallel.long_clips import LENGTH, WAYS
from tests.wan_local.test_generate import make_pipeline
from tests.wan_local.weights import packed_files as files
from wan_local import lora
from wan_local.denoiser import Denoiser
from wan_local.keyframes import Keyframe
from wan_local.model import WanTransformer
from wan_local.quantised import parameter_shapes
from wan_local.settings import Settings
from wan_local.weights import load_transformer

E4M3 = torch.float8_e4m3fn
RANK = 4
PACKED = {
    "fp8": lambda p, s: files.write_kijai(p, s, E4M3, scaled=False),
    "fp8 scaled": lambda p, s: files.write_comfy_scaled(p, s, E4M3),
    "comfy_quant e5m2": lambda p, s: files.write_comfy_quant(p, s, torch.float8_e5m2),
    "fp8 scaled by rows": lambda p, s: files.write_rows(p, s, E4M3),
    "every tensor fp8": lambda p, s: files.write_plain(p, s, E4M3),
    "GGUF Q8_0": lambda p, s: files.write_gguf(p, s, "Q8_0"),
    "GGUF Q4_K": lambda p, s: files.write_gguf(p, s, "Q4_K"),
    **files.COMFY_WRITERS,
    "bf16": lambda p, s: files.write_plain(p, s, torch.bfloat16),
}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return files.original()


@pytest.fixture(scope="module")
def tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A step-distill file as they are extracted: thin pairs, whole differences, biases, norms and modulation."""
    torch.manual_seed(9)
    found = {}
    for name, value in state.items():
        stem = "diffusion_model." + name.rpartition(".")[0]
        if value.ndim == 2 and name.endswith(".weight"):
            found[f"{stem}.lora_down.weight"] = torch.randn(RANK, value.shape[1]) * 0.1
            found[f"{stem}.lora_up.weight"] = torch.randn(value.shape[0], RANK) * 0.1
            found[f"{stem}.alpha"] = torch.tensor(2.0)
        elif name.endswith("bias"):
            found[f"{stem}.diff_b"] = torch.randn(value.shape) * 0.1
        elif name.endswith(".modulation"):
            found[f"{stem}.diff_m"] = torch.randn(value.shape) * 0.1
        elif name.endswith("weight"):
            found[f"{stem}.diff"] = torch.randn(value.shape) * 0.05
    whole = "diffusion_model.blocks.1.ffn.0."
    for key in ("lora_down.weight", "lora_up.weight", "alpha"):
        del found[whole + key]
    found[whole + "diff"] = torch.randn(state["blocks.1.ffn.0.weight"].shape) * 0.02
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Path:
    """Another file about the same parameters."""
    torch.manual_seed(10)
    place = tmp_path_factory.mktemp("lora") / "other.safetensors"
    save_file({key: value if key.endswith("alpha") else value[torch.randperm(len(value))].flip(-1).contiguous()
               for key, value in tensors.items()}, place)  # fmt: skip
    return place


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Path:
    place = tmp_path_factory.mktemp("lora") / "distill.safetensors"
    save_file(tensors, place)
    return place


@pytest.mark.parametrize("kind", PACKED)
def test_beside_equals_merged_into_the_dequantized_weights(
    kind: str, tmp_path: Path, state: dict[str, Tensor], tensors: dict[str, Tensor], path: Path
) -> None:
    place = PACKED[kind](tmp_path / "model.bin", state)
    merged = load_transformer(place, dtype=torch.float32, unpack=True)
    found = lora.read(path, parameter_shapes(merged))
    assert found.unmatched == ()
    assert found.matched == len(tensors)
    plain = files.forward(merged)
    lora.merge(merged, [(found, 0.8)])
    expected = files.forward(merged)
    assert files.relative_error(plain, expected) > 0.05  # it does something

    packed = load_transformer(place, dtype=torch.float32)
    packed.compute_dtype = torch.float32
    assert parameter_shapes(packed) == {name: tuple(value.shape) for name, value in merged.named_parameters()}
    before = {name: value.clone() for name, value in packed.state_dict().items()}
    without = files.forward(packed)
    beside = lora.Beside(packed, [(found, 0.8)])
    error = files.relative_error(files.forward(packed), expected)
    print(f"{kind}: {found.matched} of {len(tensors)} keys, beside against merged {error:.1e}")
    assert error < 1e-4
    beside.set_strengths([0.0])
    assert torch.equal(files.forward(packed), without)
    beside.set_strengths([0.8])
    assert files.relative_error(files.forward(packed), expected) < 1e-4
    beside.remove()
    assert torch.equal(files.forward(packed), without)
    after = packed.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before)


def clips(model: WanTransformer, uses: Sequence[lora.Use] = ()) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Latents of a clip with an image in the middle, in every way, as a person would make it; LoRAs merged, beside."""
    model.config = replace(model.config, trained_frames=17)  # RIFLEx acts on more than 6 latent frames
    pipeline = make_pipeline(**asdict(model.config))
    pipeline.denoisers = (Denoiser(transformer=model),)
    applied = pipeline.use_loras(uses)
    first, middle, last = (torch.rand(1, 3, 16, 48, generator=torch.Generator().manual_seed(at)) for at in range(3))
    settings = {"length": LENGTH, "steps": 2, "seed": 7, "guidance": 4.0, "shift": 5.0}
    keyframes = [Keyframe(images=middle, frame=12)]
    found = {
        way: pipeline.generate(
            first[0], last[0], "a disc", Settings(longer=longer, **settings), keyframes=keyframes
        ).latents
        for way, longer in WAYS.items()
    }  # fmt: skip
    return found, (applied[0].merged, applied[0].beside)


@pytest.mark.parametrize("kind", ["fp8 scaled", "GGUF Q8_0", "bf16"])
def test_long_clips_and_keyframes_are_those_of_weights_it_was_merged_into(
    kind: str, tmp_path: Path, state: dict[str, Tensor], path: Path
) -> None:
    """In every window, and under slower time, as a file with the sums in it."""
    place = PACKED[kind](tmp_path / "model.bin", state)
    merged = load_transformer(place, dtype=torch.float32, unpack=True)
    plain, _ = clips(merged)
    found = lora.read(path, parameter_shapes(merged))
    lora.merge(merged, [(found, 0.8)])
    expected, _ = clips(merged)
    model = load_transformer(place, dtype=torch.float32)
    model.compute_dtype = torch.float32
    made, counted = clips(model, [lora.Use(lora=found, strength=0.8)])
    assert counted == ((1, 0) if kind == "bf16" else (0, 1))
    errors = {way: files.relative_error(made[way], expected[way]) for way in WAYS}
    print(f"{kind}: { ({way: f'{value:.1e}' for way, value in errors.items()}) }")
    assert max(errors.values()) < 1e-4
    assert all(files.relative_error(plain[way], expected[way]) > 0.05 for way in WAYS)
    assert all(files.relative_error(expected["a keyframe"], expected[way]) > 1e-3 for way in ("RIFLEx", "windows"))


def test_several_at_once_add_up(tmp_path: Path, state: dict[str, Tensor], path: Path, other: Path) -> None:
    place = PACKED["fp8 scaled"](tmp_path / "model.safetensors", state)
    model, merged = load_transformer(place, torch.float32), load_transformer(place, torch.float32, unpack=True)
    one, two = (lora.read(file, parameter_shapes(model)) for file in (path, other))
    lora.merge(merged, [(one, 0.9), (two, 0.4)])
    expected = files.forward(merged)
    lora.Beside(model, [(one, 1.4), (two, 0.4), (one, -0.5), (two, 0.0)])
    assert files.relative_error(files.forward(model), expected) < 1e-5


@pytest.mark.parametrize("kind", ["fp8 scaled", "bf16"])
@pytest.mark.parametrize("first_goes", [True, False])
def test_several_that_know_nothing_of_another_add_up(
    kind: str, first_goes: bool, tmp_path: Path, state: dict[str, Tensor], path: Path, other: Path
) -> None:
    """As nodes put them on a transformer that several values share."""
    place = PACKED[kind](tmp_path / "model.safetensors", state)
    model = load_transformer(place, dtype=torch.float32)
    one, two = (lora.read(file, parameter_shapes(model)) for file in (path, other))
    without = files.forward(model)
    both = lora.Beside(model, [(one, 0.7), (two, 0.5)])
    expected = files.forward(model)
    both.remove()
    assert torch.equal(files.forward(model), without)
    alone = lora.Beside(model, [(two, 0.5) if first_goes else (one, 0.7)])
    left = files.forward(model)
    alone.remove()
    assert files.relative_error(left, expected) > 0.05

    first, second = lora.Beside(model, [(one, 0.7)]), lora.Beside(model, [(two, 0.5)])
    assert files.relative_error(files.forward(model), expected) < 1e-5
    gone, stays, strength = (first, second, 0.5) if first_goes else (second, first, 0.7)
    gone.set_strengths([0.0])
    assert files.relative_error(files.forward(model), left) < 1e-5
    gone.set_strengths([9.0])
    gone.remove()
    assert files.relative_error(files.forward(model), left) < 1e-5
    stays.set_strengths([0.0])
    assert torch.equal(files.forward(model), without)
    stays.set_strengths([strength])
    assert files.relative_error(files.forward(model), left) < 1e-5
    stays.remove()
    assert torch.equal(files.forward(model), without)
    assert not any("lora_" in name for name, _ in model.named_buffers())


def test_whatever_allows_it_is_merged_and_the_rest_put_beside(
    tmp_path: Path, state: dict[str, Tensor], path: Path, other: Path
) -> None:
    plain = load_transformer(PACKED["bf16"](tmp_path / "plain.bin", state), dtype=torch.float32)
    packed = load_transformer(PACKED["GGUF Q8_0"](tmp_path / "packed.bin", state), dtype=torch.float32)
    dequantized = load_transformer(tmp_path / "packed.bin", dtype=torch.float32, unpack=True)
    shapes = parameter_shapes(plain)
    one, two = lora.read(path, shapes), lora.read(other, shapes)
    applied = lora.apply(plain, [lora.Use(lora=one), lora.Use(lora=two, first_step=2)])
    assert (applied.merged, applied.beside) == (1, 1)
    assert not any(layer._forward_hooks for layer in plain.blocks[0].self_attn.children() if not layer.weight.ndim)
    twice = [lora.Use(lora=lora.read(path, shapes), strength=0.5) for _ in range(2)]
    assert (lora.apply(plain, twice).merged, lora.apply(plain, twice).beside) == (2, 0)
    applied = lora.apply(packed, [lora.Use(lora=one), lora.Use(lora=two, strength=0.5)])
    assert (applied.merged, applied.beside) == (0, 2)
    lora.merge(dequantized, [(one, 1.0), (two, 0.5)])
    assert files.relative_error(files.forward(packed), files.forward(dequantized)) < 1e-5


def test_a_lora_counts_in_its_steps_only(tmp_path: Path, state: dict[str, Tensor], path: Path) -> None:
    """Plain weights too: what is not always on is never merged."""
    model = WanTransformer(files.CONFIG)
    model.load_state_dict(state)
    model.requires_grad_(False)
    off = files.forward(model)
    found = lora.read(path, parameter_shapes(model))
    applied = lora.apply(model, [lora.Use(lora=found, strength=0.7, first_step=2, last_step=3)])
    seen = []
    for step in range(5):
        applied.before_step(step)
        seen.append(files.forward(model))
    assert torch.equal(seen[0], off)
    assert torch.equal(seen[3], off)
    assert torch.equal(seen[4], off)
    assert torch.equal(seen[1], seen[2])
    other = WanTransformer(files.CONFIG)
    other.load_state_dict(state)
    lora.merge(other.requires_grad_(False), [(found, 0.7)])
    assert files.relative_error(seen[1], files.forward(other)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_head_of_a_bfloat16_model_is_changed_too(state: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """It runs in float32 on weights it reads itself, so a hook would never be called."""
    model = WanTransformer(files.CONFIG)
    model.load_state_dict(state)
    model.to(dtype).requires_grad_(False)
    found = lora.read(path, parameter_shapes(model))
    before = model.head.head.weight.clone()
    lora.apply(model, [lora.Use(lora=found, last_step=9)])
    change = found.deltas["head.head.weight"].value()
    assert torch.equal(model.head.head.weight, (before.float() + change).to(dtype))
