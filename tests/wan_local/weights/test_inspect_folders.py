"""A report of a folder says which part is broken and how; it never leaves one out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from wan_local.cli import main
from wan_local.errors import UnreadableWeights, WrongModel
from wan_local.weights import inspect, load_transformer, load_vae


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny.write_pipeline(tmp_path / "model", torch.float16)


def test_a_cut_part_is_reported_as_unreadable(folder, capsys):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    report = inspect(folder)
    assert report.kind == "pipeline of 4 parts, 1 unreadable"
    broken = report.parts[0]
    assert broken.kind == "unreadable"
    assert "cut short" in broken.error
    assert "unreadable" in str(report)
    assert "cut short" in str(report)
    assert main(["inspect", str(folder), "--json"]) == 1  # the report is printed all the same
    shown = capsys.readouterr()
    part = json.loads(shown.out)["parts"][0]
    assert len(shown.err.strip().splitlines()) == 1
    assert part["kind"] == "unreadable"
    assert "cut short" in part["error"]


def test_a_missing_config_is_named(folder):
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(UnreadableWeights, match="vae has weights but no config.json; download .*vae/config.json"):
        load_vae(folder)
    report = inspect(folder)
    assert [part.kind for part in report.parts][1] == "unreadable"
    assert "vae/config.json" in str(report)
    assert load_transformer(folder)


def test_a_part_the_index_names_and_that_is_not_there(folder):
    for file in (folder / "vae").iterdir():
        file.unlink()
    (folder / "vae").rmdir()
    index = {"_class_name": "WanImageToVideoPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnreadableWeights, match="model_index.json names a vae and .*vae is not there; download"):
        load_vae(folder)
    assert inspect(folder).parts[1].kind == "unreadable"


def test_a_part_of_another_class(folder):
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(WrongModel, match="vae is an? 'AutoencoderKL' by its config.json; give .*AutoencoderKLWan"):
        load_vae(folder)
    assert inspect(folder).parts[1].kind == "unreadable"


def test_one_broken_part_alone_is_an_error(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UnreadableWeights, match="cut short"):
        inspect(folder / "vae")


def test_official_folder_with_a_cut_checkpoint(tmp_path):
    """The other parts stay usable, and the report names the broken one."""
    state = load_vae(tiny.write_pipeline(tmp_path / "other", torch.float32)).state_dict()
    torch.save(state, tmp_path / "Wan2.1_VAE.pth")
    cut = tmp_path / "Zcut.pth"
    cut.write_bytes((tmp_path / "Wan2.1_VAE.pth").read_bytes()[:5000])
    assert load_vae(tmp_path)
    report = inspect(tmp_path)
    assert [part.kind for part in report.parts] == ["Wan-VAE", "unreadable"]
    assert "Zcut.pth is a torch checkpoint, cut short" in str(report)
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(cut.read_bytes())
    with pytest.raises(UnreadableWeights, match="Wan2.1_VAE.pth is a torch checkpoint, cut short"):
        load_vae(tmp_path)


def test_a_config_that_contradicts_shows_in_the_report(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_head_dim": 12}))
    report = inspect(folder / "transformer")
    assert report.kind == "FLF2V transformer"
    assert "attention_head_dim=12" in report.error
    assert "attention_head_dim=12" in str(report)
    assert "all present" not in str(report)


def test_keys_are_only_judged_where_they_were_compared(folder):
    for part in inspect(folder).parts:
        assert "all present, none unexpected" in str(part), part.kind
    file = folder / "other.safetensors"
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}, file)
    assert "a Flux" in str(inspect(file))
    assert "  keys  " not in str(inspect(file))


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
def test_keys_of_an_encoder_are_judged(folder, part):
    file = folder / part / "model.safetensors"
    state = tiny.stored(file)
    dropped = next(name for name in state if "final_layer_norm" in name or "layer_norm1.weight" in name)
    save_file({name: value for name, value in state.items() if name != dropped} | {"extra": torch.zeros(1)}, file)
    report = next(found for found in inspect(folder).parts if part in found.path)
    assert report.unexpected == ("extra",)
    assert len(report.missing) == 1
    assert dropped.endswith(report.missing[0])
    assert report.sizes["blocks"] > 1
