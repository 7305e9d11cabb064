"""Sizes are told from the weights; a config that contradicts them is an error that names the value."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from wan_local.errors import ParameterMismatch, WeightsError, WrongModel
from wan_local.weights import inspect, load_transformer, load_vae, names


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    theirs = tiny.transformer().state_dict()
    return {str(names.transformer_to_official(name)): value for name, value in theirs.items()}


def write(path: Path, state: dict[str, torch.Tensor], config: str | None) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, path, {"config": config} if config else None)
    return path


def refused(path: Path, load=load_transformer, kind: type[WeightsError] = WrongModel) -> str:
    with pytest.raises(kind) as error:
        load(path)
    assert str(error.value).isprintable()
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("block", ["20000", "2", "01"])
def test_a_stray_block_is_unexpected_and_quickly_told(tmp_path, state, block):
    name = f"blocks.{block}.self_attn.q.weight"
    if block == "2":
        name = "blocks.7.self_attn.q.weight"
    path = tiny.write_single(tmp_path / "a.safetensors", {**state, name: torch.zeros(2)}, torch.float16)
    started = time.monotonic()
    assert f"1 unexpected ({name})" in refused(path, kind=ParameterMismatch)
    assert inspect(path).unexpected == (name,)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("value", ["12", "64", "-16", "0", "true", "2.5", "Infinity", "NaN", '"16"', "[16]", "1e400"])
def test_head_width_that_can_not_be(tmp_path, state, value):
    text = refused(write(tmp_path / "a.safetensors", state, f'{{"attention_head_dim": {value}}}'))
    assert "attention_head_dim=" in text
    assert ";" in text


@pytest.mark.parametrize("value", ["0", "3", "-2", "Infinity", 'null, "dim": 64', '"2"', "64"])
@pytest.mark.parametrize("key", ["num_heads", "num_attention_heads"])
def test_number_of_heads_that_can_not_be(tmp_path, state, key, value):
    refused(write(tmp_path / "a.safetensors", state, f'{{"{key}": {value}}}'))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"attention_head_dim": 8, "num_attention_heads": 2}, "attention_head_dim=8"),
        ({"attention_head_dim": 16, "num_layers": 3}, "num_layers=3"),
        ({"attention_head_dim": 16, "dim": 64}, "dim=64"),
        ({"attention_head_dim": 16, "eps": float("inf")}, "eps=inf"),
        ({"attention_head_dim": 16, "eps": -1}, "eps=-1"),
        ({"attention_head_dim": 16, "eps": [1]}, "eps="),
        ({"attention_head_dim": 16, "text_len": float("inf")}, "text_len=inf"),
        ({"attention_head_dim": 16, "text_len": -1}, "text_len=-1"),
    ],
)
def test_a_config_against_the_weights(tmp_path, state, config, said):
    assert said in refused(write(tmp_path / "a.safetensors", state, json.dumps(config)))


def test_no_config_and_a_width_that_128_does_not_divide(tmp_path, state):
    text = refused(write(tmp_path / "a.safetensors", state, None))
    assert f"width {tiny.WIDTH} is no multiple of the head width 128" in text
    assert "attention_head_dim" in text  # the remedy


def test_norms_of_another_width(tmp_path, state):
    broken = {**state, "blocks.0.self_attn.norm_q.weight": torch.zeros(tiny.HEAD_DIM)}
    path = write(tmp_path / "a.safetensors", broken, '{"attention_head_dim": 16}')
    assert "blocks.0.self_attn.norm_q.weight is [16], not [32]" in refused(path, kind=ParameterMismatch)


@pytest.mark.parametrize("name", ["head.head.weight", "patch_embedding.weight", "text_embedding.0.weight"])
def test_a_telling_tensor_that_is_a_scalar_or_absent(tmp_path, state, name):
    scalar = write(tmp_path / "s.safetensors", {**state, name: torch.tensor(1.0)}, '{"attention_head_dim": 16}')
    refused(scalar, kind=WeightsError)
    assert inspect(scalar)
    absent = write(tmp_path / "a.safetensors", {n: v for n, v in state.items() if n != name}, None)
    refused(absent, kind=WeightsError)
    assert inspect(absent)


def test_a_missing_head_is_named(tmp_path, state):
    headless = {n: v for n, v in state.items() if n != "head.head.weight"}
    path = write(tmp_path / "a.safetensors", headless, '{"attention_head_dim": 16}')
    report = inspect(path)
    assert (report.kind, report.missing) == ("FLF2V transformer", ("head.head.weight",))
    assert "lacks head.head.weight" in refused(path, kind=ParameterMismatch)


def test_text_to_video_says_its_channels(tmp_path):
    tiny.transformer(kind="T2V").save_pretrained(tmp_path / "t2v")
    assert "is a T2V transformer: 16 input channels; a first/last-frame model has 36" in refused(tmp_path / "t2v")


def test_36_channels_without_image_branch_are_not_called_i2v(tmp_path, state):
    plain = {n: v for n, v in state.items() if not n.startswith("img_emb.") and "_img." not in n}
    path = write(tmp_path / "a.safetensors", plain, '{"attention_head_dim": 16}')
    assert inspect(path).kind == "transformer with image latents but no image branch (as Wan2.2 I2V)"
    assert not load_transformer(path).config.has_image_branch


@pytest.mark.parametrize(
    "names_", [["lora_A.weight", "lora_B.weight"], ["lora_down.weight", "lora_up.weight", "alpha"], ["diff", "diff_b"]]
)
def test_a_lora_is_named(tmp_path, names_):
    path = tmp_path / "lora.safetensors"
    save_file({f"diffusion_model.blocks.0.self_attn.q.{name}": torch.zeros(2, 2) for name in names_}, path)
    for load in (load_transformer, load_vae):
        assert "is a LoRA, which changes a model and is none" in refused(path, load)
    assert inspect(path).kind == "a LoRA, which changes a model and is none"


# -- VAE ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The VAE with 8 latent channels instead of 16, under official names."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=8, latents_mean=[0.5] * 8, latents_std=[2.0] * 8)
    return {str(names.vae_to_official(name, 4)): value for name, value in vae.state_dict().items()}


def test_other_latent_channels_need_their_statistics(tmp_path, small):
    text = refused(write(tmp_path / "a.safetensors", small, None), load_vae)
    assert "z_dim=8" in text
    assert "latents_mean" in text
    good = {"latents_mean": [0.5] * 8, "latents_std": [2.0] * 8}
    assert load_vae(write(tmp_path / "b.safetensors", small, json.dumps(good))).config.latents_std == (2.0,) * 8


def test_a_map_to_colours_is_the_models_own_or_none(tmp_path, small):
    config = {"latents_mean": [0.5] * 8, "latents_std": [2.0] * 8}
    assert load_vae(write(tmp_path / "a.safetensors", small, json.dumps(config))).config.latent_rgb == ()
    config["_latent_rgb"] = [[0.1, 0.2, 0.3]] * 9
    found = load_vae(write(tmp_path / "b.safetensors", small, json.dumps(config))).config.latent_rgb
    assert found == ((0.1, 0.2, 0.3),) * 9


@pytest.mark.parametrize(
    "change",
    [{"latents_mean": 5}, {"latents_mean": "abcdefgh"}, {"latents_std": [0] * 8}, {"latents_std": [float("inf")] * 8},
     {"latents_mean": [0.5] * 7}, {"z_dim": 16}, {"z_dim": float("inf")}, {"latents_std": [None] * 8},
     {"_latent_rgb": 5}, {"_latent_rgb": [[0.1, 0.2, 0.3]] * 8}, {"_latent_rgb": [[0.1, 0.2]] * 9},
     {"_latent_rgb": [[0.1, 0.2, None]] * 9}],
)  # fmt: skip
def test_statistics_that_can_not_be(tmp_path, small, change):
    config = {"latents_mean": [0.5] * 8, "latents_std": [2.0] * 8} | change
    text = refused(write(tmp_path / "a.safetensors", small, json.dumps(config)), load_vae)
    assert next(iter(change)) in text
