"""LoRAs as peft, diffusers and LyCORIS wrote them, against the weights that those tools merged them into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.golden.adapter_model import CONFIG
from tests.wan_local.weights import packed_files as files
from wan_local import lora
from wan_local.errors import UnreadableWeights
from wan_local.model import WanTransformer
from wan_local.quantised import parameter_shapes
from wan_local.weights import load_transformer

GOLDEN = Path(__file__).parents[2] / "golden" / "adapters"
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
BESIDE = ("lora", "loha", "lokr", "lokr in parts", "lokr of a 1x1 convolution", "glora", "dora",
          "dora of inputs", "dokr", "new", "difference")  # fmt: skip


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return load_file(GOLDEN / "base.safetensors")


def adapter(name: str) -> Path:
    return next((GOLDEN / name).glob("*.safetensors"))


def fresh(base: dict[str, Tensor]) -> WanTransformer:
    model = WanTransformer(CONFIG)
    model.load_state_dict(base)
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_whole_and_merges_as_the_tool_that_wrote_it_does(name: str, base: dict[str, Tensor]) -> None:
    expected = base | load_file(GOLDEN / f"{name}.merged.safetensors")
    model = fresh(base)
    found = lora.read(adapter(name), parameter_shapes(model))
    assert found.unmatched == ()
    assert found.matched == len(load_file(adapter(name)))
    lora.merge(model, [(found, 1.0)])
    worst = max((value - expected[key]).abs().max().item() for key, value in model.state_dict().items())
    print(f"{name}: {found.matched} keys used, largest difference from the tool's own merge {worst:.1e}")
    assert worst <= 1e-5


def kinds(weight: Tensor) -> dict[str, lora.Delta]:
    """A change of every kind for one matrix."""
    out, into = weight.shape
    up, down = torch.randn(out, 4) * 0.1, torch.randn(4, into) * 0.1
    low_rank = lora.LowRank(up=up, down=down, scale=0.5)
    lokr = lora.Kronecker(left=(torch.randn(4, 2),), right=(torch.randn(out // 4, into // 2) * 0.05,), scale=0.5)
    halves = (torch.randn(4, 1), torch.randn(1, 2)), (torch.randn(out // 4, 3) * 0.05, torch.randn(3, into // 2))
    return {
        "lora": low_rank,
        "loha": lora.Hadamard(first=(up, down), second=(up.flip(0) * 9, down.flip(1)), scale=2.0),
        "lokr": lokr,
        "lokr in parts": lora.Kronecker(left=halves[0], right=halves[1], scale=0.3),
        "lokr of a 1x1 convolution": replace(lokr, right=(lokr.right[0][..., None, None],)),
        "glora": lora.General(a1=torch.randn(into, 4) * 0.2, a2=torch.randn(4, into) * 0.2, b1=up, b2=down, scale=0.7),
        "dora": lora.Decomposed(inner=low_rank, magnitude=weight.norm(dim=1) * 1.3, axis=0),
        "dora of inputs": lora.Decomposed(inner=low_rank, magnitude=weight.norm(dim=0)[None] * 0.7, axis=1),
        "dokr": lora.Decomposed(inner=lokr, magnitude=weight.norm(dim=1) * 0.9, axis=0),
        "new": lora.Replacement(tensor=weight.flip(0).contiguous()),
        "difference": lora.Difference(tensor=torch.randn(out, into) * 0.02),
    }


def about_blocks(state: dict[str, Tensor], *names: str) -> lora.Lora:
    """These kinds in turn, on all matrices of the blocks."""
    torch.manual_seed(4)
    matrices = [name for name, value in state.items() if value.ndim == 2 and name.startswith("blocks.")]
    deltas = {name: kinds(state[name])[names[index % len(names)]] for index, name in enumerate(matrices)}
    return lora.Lora(path="x", deltas=deltas, matched=len(deltas), unmatched=())


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return files.original()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "fp8 scaled": files.write_comfy_scaled(folder / "fp8.safetensors", state, torch.float8_e4m3fn),
        "GGUF Q8_0": files.write_gguf(folder / "q8.gguf", state, "Q8_0"),
        "bf16": files.write_plain(folder / "bf16.safetensors", state, torch.bfloat16),
    }


def models(places: dict[str, Path], kind: str) -> tuple[WanTransformer, WanTransformer]:
    """As it is kept, and with plain weights of the same numbers."""
    kept = load_transformer(places[kind], dtype=torch.float32)
    kept.compute_dtype = torch.float32
    return kept, load_transformer(places[kind], dtype=torch.float32, unpack=True)


@pytest.mark.parametrize("kind", ["fp8 scaled", "GGUF Q8_0", "bf16"])
@pytest.mark.parametrize("name", BESIDE)
def test_every_kind_beside_equals_merged(
    name: str, kind: str, places: dict[str, Path], state: dict[str, Tensor]
) -> None:
    found = about_blocks(state, name)
    kept, merged = models(places, kind)
    before = files.forward(kept)
    lora.merge(merged, [(found, 0.6)])
    expected = files.forward(merged)
    assert files.relative_error(before, expected) > 0.02
    beside = lora.Beside(kept, [(found, 0.6)])
    error = files.relative_error(files.forward(kept), expected)
    print(f"{name} beside {kind}: {error:.1e} from merged")
    assert error <= 1e-5
    beside.set_strengths([0.0])
    assert torch.equal(files.forward(kept), before)
    beside.set_strengths([0.6])
    assert files.relative_error(files.forward(kept), expected) <= 1e-5
    beside.remove()
    assert torch.equal(files.forward(kept), before)
    assert not any(getattr(layer.packing, "packing", None) for layer in kept.modules() if hasattr(layer, "packing"))
    assert not any("forward" in vars(layer) for layer in kept.modules())


@pytest.mark.parametrize("kind", ["fp8 scaled", "bf16"])
@pytest.mark.parametrize("order", [("lora", "dora"), ("dora", "lora"), ("glora", "dora"), ("dora", "loha", "glora")])
def test_several_on_one_layer_act_in_their_order(
    order: tuple[str, ...], kind: str, places: dict[str, Path], state: dict[str, Tensor]
) -> None:
    loras = [(about_blocks(state, name), 0.5 + 0.2 * index) for index, name in enumerate(order)]
    kept, merged = models(places, kind)
    _, other_way = models(places, kind)
    lora.merge(merged, loras)
    lora.merge(other_way, loras[::-1])
    expected = files.forward(merged)
    assert files.relative_error(files.forward(other_way), expected) > 1e-3
    values = [lora.Beside(kept, [one]) for one in loras]  # as nodes put them on: none knows of another
    assert files.relative_error(files.forward(kept), expected) <= 1e-5
    values.pop(0).remove()
    _, without = models(places, kind)
    lora.merge(without, loras[1:])
    assert files.relative_error(files.forward(kept), files.forward(without)) <= 1e-5


def test_a_dora_counts_in_its_steps_only(places: dict[str, Path], state: dict[str, Tensor]) -> None:
    found, plain = about_blocks(state, "dora"), about_blocks(state, "lora")
    kept, merged = models(places, "bf16")
    off = files.forward(kept)
    lora.merge(merged, [(plain, 0.5), (found, 0.8)])
    uses = [lora.Use(lora=one, strength=part, first_step=2) for one, part in ((plain, 0.5), (found, 0.8))]
    applied = lora.apply(kept, uses)
    applied.before_step(0)
    assert torch.equal(files.forward(kept), off)
    applied.before_step(1)
    assert files.relative_error(files.forward(kept), files.forward(merged)) <= 1e-5


def test_a_new_value_of_a_bias_is_put_in_place(base: dict[str, Tensor]) -> None:
    """peft's ``bias="all"`` beside weights that stay as they are, half way there."""
    model, merged = fresh(base), fresh(base)
    found = lora.read(adapter("peft_all_biases"), parameter_shapes(model))
    lora.merge(merged, [(found, 0.5)])
    beside = lora.Beside(model, [(found, 0.5)])
    name = "blocks.0.ffn.0.bias"
    assert torch.allclose(model.get_parameter(name), merged.get_parameter(name), atol=1e-6)
    assert not torch.allclose(model.get_parameter(name), base[name], atol=1e-3)
    beside.remove()
    assert torch.equal(model.get_parameter(name), base[name])


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.3])
def test_the_strength_of_a_dora_is_on_the_way_to_what_it_is_at_one(strength: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4)
    delta = kinds(torch.randn(8, 4))["lora"]
    inner = lora.LowRank(up=delta.up[:6], down=delta.down, scale=0.5)
    magnitude = torch.rand(6) + 0.5
    changed = weight + inner.value()
    whole = magnitude[:, None] * changed / changed.norm(dim=1, keepdim=True)
    found = lora.Decomposed(inner=inner, magnitude=magnitude, axis=0).applied(weight, strength)
    assert torch.allclose(found, weight + strength * (whole - weight), atol=1e-6)


def test_early_lycoris_had_the_matrices_of_glora_the_other_way_round(base: dict[str, Tensor], tmp_path: Path) -> None:
    """On a square layer both fit."""
    model = fresh(base)
    new = load_file(adapter("lycoris_glora"))
    swap = {"a1": "a2", "a2": "a1", "b1": "b2", "b2": "b1"}
    old = {}
    for key, value in new.items():
        stem, dot, part = key.partition(".")
        old[f"{stem}.{swap[part[:2]]}.weight" if part[:2] in swap else key] = value
    save_file(old, tmp_path / "old.safetensors")
    shapes = parameter_shapes(model)
    found, again = lora.read(adapter("lycoris_glora"), shapes), lora.read(tmp_path / "old.safetensors", shapes)
    for name, delta in found.deltas.items():
        assert torch.equal(delta.applied(base[name], 1.0), again.deltas[name].applied(base[name], 1.0))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 2)}, r"without its other half \(.*hada_w2_b"),
        ({"lokr_w1": (4, 4)}, r"without its other half \(lokr_w2"),
        ({"lokr_w1": (4, 4), "lokr_w2": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)}, "whole and in parts"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)}, "can't be multiplied"),
        ({"hada_w1_a": (16, 2), "hada_w1_b": (3, 16), "hada_w2_a": (16, 2), "hada_w2_b": (2, 16)}, "can't be mult"),
        ({"a1.weight": (16, 2), "a2.weight": (2, 16), "b1.weight": (16, 2)}, "without its other half"),
        ({"a1.weight": (16, 2), "a2.weight": (3, 16), "b1.weight": (16, 2), "b2.weight": (2, 16)}, "can't be mult"),
        ({"dora_scale": (16, 1)}, "without the LoRA that it belongs to"),
        ({"lora_A.weight": (2, 16), "lora_B.weight": (16, 2), "dora_scale": (5, 1)}, "fits neither side"),
        ({"lora_A.weight": (2, 16), "lora_B.weight": (16, 2), "lokr_w1": (4, 4)}, "more than one kind of change"),
        ({"diff": (16, 16), "dora_scale": (16, 1)}, "more than one kind of change"),
        ({"lora_A.weight": (2, 16), "lora_mid.weight": (2, 2, 1)}, r"without its other half \(up"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(
    parts: dict[str, tuple[int, ...]], reason: str, base: dict[str, Tensor], tmp_path: Path
) -> None:
    key = "diffusion_model.blocks.0.self_attn.q."
    save_file({key + part: torch.ones(shape) for part, shape in parts.items()}, tmp_path / "lora.safetensors")
    with pytest.raises(UnreadableWeights, match=reason) as caught:
        lora.read(tmp_path / "lora.safetensors", parameter_shapes(fresh(base)))
    assert "\n" not in str(caught.value)
