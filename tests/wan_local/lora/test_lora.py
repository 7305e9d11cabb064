"""Every layout of LoRA file: all of its names found, and the merged weights those of a plain sum."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers
from safetensors.torch import save_file
from torch import Tensor, nn

from wan_local import lora
from wan_local.config import TransformerConfig
from wan_local.errors import InputError, ParameterMismatch, UnreadableWeights, WrongModel
from wan_local.model import WanTransformer
from wan_local.weights.names import transformer_to_diffusers

RANK, ALPHA = 4, 2.0
CONFIG = TransformerConfig(
    dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=24, freq_dim=32, text_len=8, image_dim=20, image_tokens=10
)
LAYERS = ("self_attn.q", "self_attn.o", "cross_attn.k", "cross_attn.k_img", "cross_attn.v_img", "ffn.0", "ffn.2")
MODULES = tuple(f"blocks.{block}.{layer}" for block in range(2) for layer in LAYERS)

Pairs = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture
def model() -> WanTransformer:
    torch.manual_seed(0)
    model = WanTransformer(CONFIG)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def pairs(model: WanTransformer) -> Pairs:
    """Module to (down, up)."""
    torch.manual_seed(1)
    found = {}
    for module in MODULES:
        out_dim, in_dim = model.get_submodule(module).weight.shape
        found[module] = torch.randn(RANK, in_dim), torch.randn(out_dim, RANK)
    return found


def diffusers_name(module: str) -> str:
    name = transformer_to_diffusers(module + ".weight")
    assert name
    return name.removesuffix(".weight")


def kohya(pairs: Pairs, prefix: str) -> dict[str, Tensor]:
    tensors = {}
    for module, (down, up) in pairs.items():
        flat = prefix + module.replace(".", "_")
        tensors |= {flat + ".lora_down.weight": down, flat + ".lora_up.weight": up}
        tensors[flat + ".alpha"] = torch.tensor(ALPHA)
    return tensors


def dotted(pairs: Pairs, prefix: str, down: str, up: str, name: Callable[[str], str] = str) -> dict[str, Tensor]:
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors |= {f"{prefix}{name(module)}.{down}": a, f"{prefix}{name(module)}.{up}": b}
    return tensors


A, B = "lora_A.weight", "lora_B.weight"
LAYOUTS: dict[str, tuple[Callable[[Pairs], dict[str, Tensor]], float]] = {
    "kohya lora_unet__": (lambda p: kohya(p, "lora_unet__"), ALPHA / RANK),
    "kohya lora_unet_": (lambda p: kohya(p, "lora_unet_"), ALPHA / RANK),
    "lycoris_": (lambda p: kohya(p, "lycoris_"), ALPHA / RANK),
    "diffusion_model. A/B": (lambda p: dotted(p, "diffusion_model.", A, B), 1.0),
    "diffusion_model. down/up with alpha": (
        lambda p: (
            dotted(p, "diffusion_model.", "lora_down.weight", "lora_up.weight")
            | {f"diffusion_model.{module}.alpha": torch.tensor(ALPHA) for module in p}
        ),
        ALPHA / RANK,
    ),
    "diffusers transformer.": (lambda p: dotted(p, "transformer.", A, B, diffusers_name), 1.0),
    "official names, no prefix": (lambda p: dotted(p, "", A, B), 1.0),
    "pipe.dit. default adapter": (
        lambda p: dotted(p, "pipe.dit.", "lora_A.default.weight", "lora_B.default.weight"),
        1.0,
    ),
    "peft base_model.model.": (lambda p: dotted(p, "base_model.model.", A, B), 1.0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_whole_and_merges_as_a_plain_sum(
    layout: str, model: WanTransformer, tmp_path: Path
) -> None:
    write, scale = LAYOUTS[layout]
    made, strength = pairs(model), 0.7
    tensors = write(made)
    save_file(tensors, tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.unmatched == ()
    assert found.matched == len(tensors)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for module, (down, up) in made.items():
        expected[module + ".weight"] += strength * scale * (up @ down)
    lora.merge(model, [(found, strength)])
    worst = max((value - expected[name]).abs().max().item() for name, value in model.state_dict().items())
    print(f"{layout}: {found.matched} of {len(tensors)} keys, largest difference from the plain sum {worst:.1e}")
    assert worst < 1e-4


def test_the_names_agree_with_those_diffusers_converts_to(model: WanTransformer, tmp_path: Path) -> None:
    """diffusers' own converter of official names: the same module must get the same matrices."""
    made = pairs(model)
    theirs = _convert_non_diffusers_wan_lora_to_diffusers(dotted(made, "diffusion_model.", A, B))
    save_file({key: value.contiguous() for key, value in theirs.items()}, tmp_path / "theirs.safetensors")
    found = lora.read(tmp_path / "theirs.safetensors", shapes(model))
    assert found.unmatched == ()
    assert set(found.deltas) == {module + ".weight" for module in MODULES}
    for module, (down, up) in made.items():
        assert torch.equal(found.deltas[module + ".weight"].value(), up @ down)


def test_differences_of_weights_biases_and_modulation_are_added(model: WanTransformer, tmp_path: Path) -> None:
    torch.manual_seed(2)
    changed = {
        "diffusion_model.blocks.0.self_attn.norm_q.diff": "blocks.0.self_attn.norm_q.weight",
        "diffusion_model.blocks.1.cross_attn.norm_k_img.diff": "blocks.1.cross_attn.norm_k_img.weight",
        "diffusion_model.blocks.0.ffn.0.diff_b": "blocks.0.ffn.0.bias",
        "diffusion_model.blocks.1.diff_m": "blocks.1.modulation",
        "diffusion_model.head.diff_m": "head.modulation",
        "diffusion_model.patch_embedding.diff": "patch_embedding.weight",
        "diffusion_model.img_emb.proj.1.diff": "img_emb.proj.1.weight",
        "diffusion_model.img_emb.emb_pos.diff": "img_emb.emb_pos",
        "diffusion_model.time_projection.1.diff_b": "time_projection.1.bias",
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = {key: torch.randn(before[name].shape) for key, name in changed.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.unmatched == ()
    lora.merge(model, [(found, -0.5)])
    for key, name in changed.items():
        assert torch.allclose(model.state_dict()[name], before[name] - 0.5 * tensors[key], atol=1e-6), key
    untouched = set(before) - set(changed.values())
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in untouched)


def test_a_convolution_takes_a_low_rank_change(model: WanTransformer, tmp_path: Path) -> None:
    out_dim, in_dim, *kernel = model.patch_embedding.weight.shape
    down, up = torch.randn(RANK, in_dim, *kernel), torch.randn(out_dim, RANK, 1, 1, 1)
    key = "diffusion_model.patch_embedding."
    save_file({key + "lora_down.weight": down, key + "lora_up.weight": up}, tmp_path / "lora.safetensors")
    before = model.patch_embedding.weight.clone()
    lora.merge(model, [(lora.read(tmp_path / "lora.safetensors", shapes(model)), 1.0)])
    change = torch.einsum("or,richw->oichw", up[..., 0, 0, 0], down)
    assert torch.allclose(model.patch_embedding.weight, before + change, atol=1e-5)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("place", ["beside", "metadata"])
def test_peft_says_its_scale_in_a_config(place: str, stabilised: bool, model: WanTransformer, tmp_path: Path) -> None:
    made = pairs(model)
    config = {"r": RANK, "lora_alpha": 8, "use_rslora": stabilised}
    metadata = None
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        config = {f"transformer.{key}": value for key, value in config.items()}
        metadata = {"lora_adapter_metadata": json.dumps(config)}
    save_file(dotted(made, "base_model.model.", A, B), tmp_path / "adapter_model.safetensors", metadata)
    found = lora.read(tmp_path, shapes(model))
    scale = 8 / math.sqrt(RANK) if stabilised else 8 / RANK
    for module, (down, up) in made.items():
        assert torch.allclose(found.deltas[module + ".weight"].value(), scale * (up @ down))


PATTERNS = {  # peft's rule: a regular expression for the end of a layer's name, from any dot on
    "blocks.1.ffn.0": {"blocks.1.ffn.0"},
    "fn.0": set(),
    "self_attn.q": {"blocks.0.self_attn.q", "blocks.1.self_attn.q"},
    "^blocks.0.ffn.2": {"blocks.0.ffn.2"},
    "^ffn.2": set(),
    r"blocks\.\d+\.ffn\.[02]$": {f"blocks.{block}.ffn.{layer}" for block in range(2) for layer in (0, 2)},
    ".*cross_attn.*": {name for name in MODULES if "cross_attn" in name},
    "(self_attn.o|cross_attn.k)": {name for name in MODULES if name.endswith(("self_attn.o", "cross_attn.k"))},
}


@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.", "base_model.model.diffusion_model."])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_peft_says_other_scales_for_some_layers(
    pattern: str, prefix: str, model: WanTransformer, tmp_path: Path
) -> None:
    config = {"r": RANK, "lora_alpha": 8, "alpha_pattern": {pattern: 32, "ffn.2": 2.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(dotted(pairs(model), prefix, A, B), tmp_path / "adapter_model.safetensors")
    found = lora.read(tmp_path, shapes(model))
    for module in MODULES:
        alpha = 32 if module in PATTERNS[pattern] else 2.0 if module.endswith("ffn.2") else 8
        assert found.deltas[module + ".weight"].scale == alpha / RANK, module


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(a*)*", ".*.*.*.*a", 7 * "(a|a)", "(?=a)", "a{9}", "(", "a?a?a?a?"]
)
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str, model: WanTransformer, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "rank_pattern": {pattern: 3}}))
    save_file(dotted(pairs(model), "base_model.model.", A, B), tmp_path / "adapter_model.safetensors")
    with pytest.raises(UnreadableWeights, match="rank_pattern") as caught:
        lora.read(tmp_path, shapes(model))
    assert f"{pattern!r}: 3" in str(caught.value)


def test_a_lora_of_changed_weights_is_refused(model: WanTransformer, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "init_lora_weights": "pissa_niter_4"}))
    save_file(dotted(pairs(model), "base_model.model.", A, B), tmp_path / "adapter_model.safetensors")
    with pytest.raises(UnreadableWeights, match="path_initial_model_for_weight_conversion"):
        lora.read(tmp_path, shapes(model))


@pytest.mark.parametrize("name", ["default", "speed", "my-lora_2"])
def test_the_name_of_an_adapter_may_stand_in_the_names(name: str, model: WanTransformer, tmp_path: Path) -> None:
    made = pairs(model)
    named = dotted(made, "base_model.model.", f"lora_A.{name}.weight", f"lora_B.{name}.weight")
    for module, (_, up) in made.items():
        named[f"base_model.model.{module}.lora_B.{name}.bias"] = up[:, 0].contiguous()
    named["base_model.model.head.head.modules_to_save.weight"] = torch.zeros_like(model.head.head.weight)
    named[f"base_model.model.head.head.modules_to_save.{name}.bias"] = torch.zeros_like(model.head.head.bias)
    save_file(named, tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.unmatched == ()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lora.merge(model, [(found, 1.0)])
    for module, (down, up) in made.items():
        assert torch.allclose(model.state_dict()[module + ".weight"], before[module + ".weight"] + up @ down, atol=1e-5)
        assert torch.allclose(model.state_dict()[module + ".bias"], before[module + ".bias"] + up[:, 0], atol=1e-6)
    assert not model.head.head.weight.any()
    assert not model.head.head.bias.any()


@pytest.mark.parametrize("alpha", [torch.tensor(2), torch.tensor([2], dtype=torch.int32), torch.tensor(2.0).half()])
def test_an_alpha_may_be_any_kind_of_number(alpha: Tensor, model: WanTransformer, tmp_path: Path) -> None:
    save_file(PAIR | {"blocks.0.ffn.0.alpha": alpha}, tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.deltas["blocks.0.ffn.0.weight"].scale == 2.0 / RANK
    assert found.matched == 3


def test_the_first_layer_of_a_text_to_video_lora_is_left_out(model: WanTransformer, tmp_path: Path) -> None:
    low_rank = {
        "patch_embedding.lora_A.weight": torch.ones(2, 16, 1, 2, 2), "patch_embedding.lora_B.weight": torch.ones(32, 2),
        "patch_embedding.alpha": torch.tensor(2),
    }  # fmt: skip
    for patch in ({"patch_embedding.diff": torch.ones(32, 16, 1, 2, 2)}, low_rank):
        tensors = PAIR | patch | {"patch_embedding.diff_b": torch.ones(32)}
        save_file(tensors, tmp_path / "lora.safetensors")
        found = lora.read(tmp_path / "lora.safetensors", shapes(model))
        assert set(found.deltas) == {"blocks.0.ffn.0.weight", "patch_embedding.bias"}
        assert set(found.unmatched) == set(patch)
        assert found.matched == 3
        assert f"{len(patch)} not used ('patch_embedding." in found.report()


def test_a_change_is_in_the_shape_of_what_it_changes(model: WanTransformer, tmp_path: Path) -> None:
    """A host compares shapes, and drops what has another."""
    flat = {"patch_embedding.diff": "patch_embedding.weight", "blocks.0.diff_m": "blocks.0.modulation"}
    stored = {key: torch.randn(shapes(model)[name]) for key, name in flat.items()}
    save_file(
        {
            "patch_embedding.diff": stored["patch_embedding.diff"].flatten(1),
            "blocks.0.diff_m": stored["blocks.0.diff_m"][0],
        },
        tmp_path / "lora.safetensors",
    )
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.unmatched == ()
    for key, name in flat.items():
        assert torch.equal(found.deltas[name].tensor, stored[key])


def test_several_loras_add_up_and_strength_zero_does_nothing(model: WanTransformer, tmp_path: Path) -> None:
    made = pairs(model)
    files = []
    for index, factor in enumerate((1.0, 2.0, 5.0)):
        scaled = {module: (down, factor * up) for module, (down, up) in made.items()}
        save_file(dotted(scaled, "", A, B), tmp_path / f"{index}.safetensors")
        files.append(lora.read(tmp_path / f"{index}.safetensors", shapes(model)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lora.merge(model, list(zip(files, (0.5, -1.0, 0.0), strict=True)))
    for module, (down, up) in made.items():
        assert torch.allclose(
            model.state_dict()[module + ".weight"], before[module + ".weight"] - 1.5 * (up @ down), atol=1e-4
        )


def test_a_sum_is_rounded_once_to_the_dtype_of_the_weights(model: WanTransformer, tmp_path: Path) -> None:
    made = pairs(model)
    save_file(dotted(made, "", A, B), tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    model.to(torch.bfloat16)
    before = model.blocks[0].ffn[0].weight.float()
    lora.merge(model, [(found, 1.0)] * 3)
    down, up = made["blocks.0.ffn.0"]
    after = model.blocks[0].ffn[0].weight
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, (before + up @ down + up @ down + up @ down).bfloat16())


def test_names_without_a_place_are_told(model: WanTransformer, tmp_path: Path) -> None:
    tensors = dotted(pairs(model), "", A, B) | {"blocks.7.self_attn.q.lora_A.weight": torch.zeros(RANK, 32)}
    save_file(tensors, tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    assert found.unmatched == ("blocks.7.self_attn.q.lora_A.weight",)
    assert found.report() == (
        "lora.safetensors: 28 tensors change 14 parameters; 1 not used ('blocks.7.self_attn.q.lora_A.weight')"
    )


PAIR = {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 32), "blocks.0.ffn.0.lora_B.weight": torch.ones(48, 4)}
BAD: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "another model's": (
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": torch.zeros(1, 1)},
        WrongModel,
        "is a LoRA of another model",
    ),
    "no LoRA": ({"decoder.conv1.weight": torch.zeros(1)}, WrongModel, "is no LoRA"),
    "a model's own weights": ({"blocks.0.ffn.0.weight": torch.zeros(48, 32)}, WrongModel, "is no LoRA"),
    "half a pair": ({"blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 32)}, UnreadableWeights, "without its other half"),
    "ranks that differ": (
        {"blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 32), "blocks.0.ffn.0.lora_B.weight": torch.zeros(48, 3)},
        UnreadableWeights,
        "can't be multiplied",
    ),
    "another width": (
        {"blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 64), "blocks.0.ffn.0.lora_B.weight": torch.zeros(48, 4)},
        ParameterMismatch,
        "blocks.0.ffn.0.weight is [48, 64], not [48, 32]",
    ),
    "whole numbers": (
        {
            "blocks.0.ffn.0.lora_A.weight": torch.zeros(4, 32, dtype=torch.int8),
            "blocks.0.ffn.0.lora_B.weight": torch.zeros(48, 4, dtype=torch.int8),
        },
        UnreadableWeights,
        "is torch.int8",
    ),
    "NaN": (
        PAIR | {"blocks.0.ffn.0.lora_A.weight": torch.full((4, 32), math.nan)},
        UnreadableWeights,
        "'blocks.0.ffn.0.lora_A.weight' has NaN or infinity in it",
    ),
    "infinity in a difference": (
        {"blocks.0.ffn.0.diff_b": torch.tensor([math.inf] * 48).half()},
        UnreadableWeights,
        "'blocks.0.ffn.0.diff_b' has NaN or infinity in it",
    ),
    "two alphas": (PAIR | {"blocks.0.ffn.0.alpha": torch.ones(2)}, UnreadableWeights, "of shape [2], not one"),
    "no alpha": (PAIR | {"blocks.0.ffn.0.alpha": torch.ones(0)}, UnreadableWeights, "of shape [0], not one"),
    "an alpha that is none": (PAIR | {"blocks.0.ffn.0.alpha": torch.tensor(math.nan)}, UnreadableWeights, "is nan"),
    "only a patch kernel of another model": (
        {"patch_embedding.diff": torch.zeros(32, 16, 1, 2, 2)},
        ParameterMismatch,
        "patch_embedding.weight is [32, 16, 1, 2, 2], not [32, 36, 1, 2, 2]",
    ),
    "a patch kernel and more of another size": (
        {"patch_embedding.diff": torch.zeros(32, 16, 1, 2, 2), "blocks.0.ffn.0.diff_b": torch.zeros(47)},
        ParameterMismatch,
        "no place for 2 of 2 changes",
    ),
}
NOT_USABLE = (  # parts of layers that this model has; the rest alone would be another change
    "ffn.2.oft_blocks", "ffn.2.oft_R.weight", "ffn.0.bm.weight", "self_attn.q.vera_lambda_b",
    "self_attn.norm_q.diff_b", "ffn.0.weight", "ffn.2.lora_C.weight", "ffn.0.lora_A.speed.x.weight",
)  # fmt: skip
for mark in NOT_USABLE:
    for prefix in ("blocks.0.", "diffusion_model.blocks.0."):
        BAD[f"{prefix}{mark} beside a LoRA"] = (
            PAIR | {f"{prefix}{mark}": torch.ones(3)},
            WrongModel,
            f"in a way that can't be used: 1 of 3 tensors ('{prefix}{mark}')",
        )
BAD["OFT alone"] = {"lycoris_blocks_0_ffn_0.oft_blocks": torch.ones(3)}, WrongModel, "can't be used: 1 of 1 tensor ("


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_used_is_refused_in_one_line(case: str, model: WanTransformer, tmp_path: Path) -> None:
    tensors, error, part = BAD[case]
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    with pytest.raises(error) as caught:
        lora.read(path, shapes(model))
    message = str(caught.value)
    assert part in message
    assert str(path) in message
    assert "\n" not in message


def test_a_missing_file_is_named(model: WanTransformer, tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match="is not there"):
        lora.read(tmp_path / "none.safetensors", shapes(model))


def test_quantised_weights_are_not_merged_into(model: WanTransformer, tmp_path: Path) -> None:
    save_file(dotted(pairs(model), "", A, B), tmp_path / "lora.safetensors")
    found = lora.read(tmp_path / "lora.safetensors", shapes(model))
    model.blocks[0].ffn[0].weight = nn.Parameter(
        model.blocks[0].ffn[0].weight.to(torch.float8_e4m3fn), requires_grad=False
    )
    with pytest.raises(InputError, match="float8_e4m3fn"):
        lora.merge(model, [(found, 1.0)])
