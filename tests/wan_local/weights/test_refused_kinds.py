"""What can't be read is named for what it is, and the message says what to take instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tiny
from tests.wan_local.weights import packed_files as files
from wan_local.errors import UnreadableWeights, WeightsError, WrongModel
from wan_local.weights import inspect, load_image_encoder, load_text_encoder, load_transformer, load_vae

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b\nsize 16\n"
RIGHT_VAE = r"give the Wan2.1 VAE, such as .*wan_2.1_vae.safetensors of Comfy-Org/Wan_2.1_ComfyUI_repackaged"
IN_THE_PLACE = {
    "a git-lfs pointer": (POINTER, "is a git-lfs pointer.* run `git lfs install` and `git lfs pull`"),
    "a page": (b"<!DOCTYPE html><html>" * 10, "is a web page and no weights.*open its address in a browser"),
    "a page behind a mark": (b"\xef\xbb\xbf\n<html lang='en'>" * 10, "is a web page and no weights"),
    "a storage's error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "a server's error": (b'{"error": "Access is restricted"}', "says an error .*Access is restricted"),
    "nothing": (b"", "is empty; download it again"),
    "zeros": (b"\0" * 600, "starts with nothing but zeros, as a download that was not finished"),
    "an old torch file": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before torch 1.6"),
    "an archive": (b"7z\xbc\xaf'\x1c\0\x04" * 8, "is a compressed archive; unpack it"),
}


def refused(load: object, path: Path, match: str, kind: type[WeightsError] = UnreadableWeights) -> None:
    with pytest.raises(kind, match=match) as error:
        load(path)  # type: ignore[operator]
    assert str(error.value).isprintable()
    assert path.name in str(error.value)
    assert "unmodified" not in str(error.value)


@pytest.mark.parametrize("load", [load_transformer, load_vae, load_text_encoder, load_image_encoder, inspect])
@pytest.mark.parametrize("what", IN_THE_PLACE)
def test_what_is_no_weight_file_at_all(what: str, load: object, tmp_path: Path) -> None:
    content, match = IN_THE_PLACE[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(load, path, match)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x8B1F], ids=["old torch", "older torch", "gzip"])
def test_a_header_whose_length_looks_like_another_format(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"vae.decoder.head.0.gamma": torch.ones(1)}, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + data[8 + size :])
    assert inspect(path).parameters == 1


def test_a_folder_cloned_without_git_lfs(tmp_path: Path) -> None:
    folder = tiny.write_pipeline(tmp_path / "model")
    for file in folder.rglob("*.safetensors"):
        file.write_bytes(POINTER)
    for load in (load_transformer, load_vae, load_text_encoder, load_image_encoder):
        with pytest.raises(UnreadableWeights, match="git lfs pull"):
            load(folder)
    official = tmp_path / "official"
    official.mkdir()
    (official / "Wan2.1_VAE.pth").write_bytes(POINTER)
    with pytest.raises(UnreadableWeights, match="Wan2.1_VAE.pth is a git-lfs pointer"):
        load_vae(official)


def large_vae(folder: Path) -> Path:
    """Wan2.2's own, by diffusers' class."""
    torch.manual_seed(0)
    AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=48, in_channels=12, out_channels=12, is_residual=True, patch_size=2,
        scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    ).save_pretrained(folder)  # fmt: skip
    return folder


OFFICIAL_LARGE_VAE = {
    "encoder.conv1.weight": (4, 12, 3, 3, 3), "conv1.weight": (96, 96, 1, 1, 1), "conv2.weight": (48, 48, 1, 1, 1),
    "encoder.downsamples.0.downsamples.0.residual.0.gamma": (4, 1, 1, 1), "decoder.head.0.gamma": (4, 1, 1, 1),
    "decoder.upsamples.0.upsamples.0.residual.0.gamma": (4, 1, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["diffusers", "official", "ComfyUI"])
def test_the_vae_of_wan_22(layout: str, tmp_path: Path) -> None:
    if layout == "diffusers":
        path = large_vae(tmp_path / "vae")
    else:
        path, prefix = tmp_path / "wan2.2_vae.safetensors", "first_stage_model." if layout == "ComfyUI" else ""
        save_file({prefix + name: torch.zeros(shape) for name, shape in OFFICIAL_LARGE_VAE.items()}, path)
    refused(load_vae, path, r"is the Wan2.2 VAE of TI2V-5B \(48 latent channels\); " + RIGHT_VAE, WrongModel)
    assert inspect(path).kind == "the Wan2.2 VAE of TI2V-5B (48 latent channels)"


def of_channels(path: Path, inside: int, outside: int = 16) -> Path:
    state = {name: value.clone() for name, value in files.original().items()}
    state["patch_embedding.weight"] = torch.zeros(files.CONFIG.dim, inside, 1, 2, 2)
    state["head.head.weight"] = torch.zeros(outside * 4, files.CONFIG.dim)
    state["head.head.bias"] = torch.zeros(outside * 4)
    save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("channels", "outside", "what"),
    [
        (48, 48, "is the Wan2.2 TI2V-5B transformer"),
        (48, 16, "is a Wan Fun-Control transformer"),
        (16, 16, "is a T2V transformer: 16 input channels"),
    ],
)
def test_transformers_of_other_inputs(channels: int, outside: int, what: str, tmp_path: Path) -> None:
    path = of_channels(tmp_path / "a.safetensors", channels, outside)
    refused(load_transformer, path, what + r".* give Wan2.1 FLF2V weights", WrongModel)


def layer(weight: Tensor, **beside: Tensor) -> dict[str, Tensor]:
    """A transformer whose every matrix has a twin of another kind."""
    state = files.original()
    matrices = [name for name, value in state.items() if files.is_matrix(name, value)]
    rest = {name: value for name, value in state.items() if name not in matrices}
    for name in matrices:
        rest |= {name.removesuffix("weight") + leaf.replace("__", "."): value for leaf, value in beside.items()}
        if weight.numel():
            rest[name] = weight.expand(state[name].shape).contiguous()
    return {name: value.clone() for name, value in rest.items()}


ONE = torch.ones(1)
BYTE = torch.ones(1, 1, dtype=torch.int8)
NONE = torch.empty(0)
QUANTISED = {
    "quanto": (NONE, {"weight___data": BYTE, "weight___scale": ONE, "input_scale": ONE}, r"quanto \(as"),
    "LightX2V": (BYTE, {"weight_scale": ONE}, r"LightX2V \(int8\)"),
    "LightX2V, four bits": (BYTE.byte(), {"weight_scale": ONE}, r"LightX2V \(4 or 6 bits\)"),
    "bitsandbytes nf4": (BYTE.byte(), {"weight__absmax": ONE, "weight__quant_map": ONE}, "bitsandbytes"),
    "bitsandbytes int8": (BYTE, {"SCB": ONE}, r"bitsandbytes \(int8\)"),
    "Nunchaku": (NONE, {"qweight": BYTE, "wscales": ONE, "smooth_factor": ONE}, r"Nunchaku \(SVDQuant\)"),
    "GPTQ": (NONE, {"qweight": BYTE, "qzeros": BYTE, "scales": ONE}, "GPTQ or AWQ"),
}


@pytest.mark.parametrize("who", QUANTISED)
def test_packings_of_others(who: str, tmp_path: Path) -> None:
    weight, beside, named = QUANTISED[who]
    path = tmp_path / "a.safetensors"
    save_file(layer(weight, **beside), path)
    refused(load_transformer, path, f"is quantised by {named}.*use its fp8, GGUF, bf16 or fp16 file, such as")


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_lora_in_the_place_of_a_model(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"lora.{ending}"
    pairs = {f"diffusion_model.blocks.0.ffn.0.lora_{side}.weight": torch.zeros(4, 4) for side in "AB"}
    if ending == "ckpt":
        torch.save({"state_dict": pairs, "global_step": 7}, path)
    else:
        save_file(pairs, path)
    for load in (load_transformer, load_vae, load_text_encoder, load_image_encoder):
        refused(load, path, "is a LoRA, which changes a model and is none; give ", WrongModel)


@pytest.mark.parametrize("kind", ["hada_w1_a", "lokr_w1", "dora_scale"])
def test_loras_of_other_kinds_are_loras(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({f"lycoris_blocks_0_ffn_0.{kind}": torch.zeros(4, 4)}, path)
    refused(load_transformer, path, "is a LoRA", WrongModel)


def test_a_part_of_a_download(tmp_path: Path) -> None:
    whole = tiny.write_pipeline(tmp_path / "model") / "vae" / "diffusion_pytorch_model.safetensors"
    assert load_file(whole)
    path = tmp_path / "part.safetensors"
    path.write_bytes(whole.read_bytes()[:-100])
    refused(load_vae, path, r"is cut short: .*\(100 in all\); download it again")
