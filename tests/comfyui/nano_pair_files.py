"""The bundled pair of experts as people have pairs: whole folders in both layouts, and a LoRA file for each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from comfy_server import PACK
from nano_graph import NANO
from safetensors.torch import load_file, save_file
from torch import Tensor

from wan_local import weights
from wan_local.weights.experts import DIFFUSERS, OFFICIAL
from wan_local.weights.names import transformer_to_diffusers
from wan_local.weights.official_encoders import UMT5_BLOCK, UMT5_TOP

LEVELS = ("high_noise", "low_noise")
OFFICIAL_FOLDER, DIFFUSERS_FOLDER = "Wan2.2-I2V-nano", "Wan2.2-I2V-nano-Diffusers"
LORAS = {level: f"nano_pair_lora_{level}.safetensors" for level in LEVELS}
RANK, STRENGTH = 4, 0.1  # of the numbers in both factors
SIZES = {"num_layers": 3, "ffn_dim": 448, "text_len": 512}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def expert(level: str) -> dict[str, Tensor]:
    """One of the two, under official names."""
    return load_file(PACK / "weights" / "nano_pair" / f"{level}.safetensors")


def write_folders(models: Path) -> None:
    """Both layouts, in ``models/diffusers``."""
    _write_official(models / "diffusers" / OFFICIAL_FOLDER)
    _write_diffusers(models / "diffusers" / DIFFUSERS_FOLDER)


def write_loras(models: Path) -> None:
    """One LoRA an expert, as kohya's trainers write them for ComfyUI with an alpha, and as diffusers' do with peft."""
    generator = torch.Generator().manual_seed(7)
    high, low = {}, {}
    for name, value in expert("high_noise").items():
        if not name.endswith(("self_attn.v.weight", "ffn.0.weight")):
            continue
        ours, theirs = name.removesuffix(".weight"), str(transformer_to_diffusers(name)).removesuffix(".weight")
        down, up = (STRENGTH * torch.randn(*shape, generator=generator) for shape in _shapes(value))
        flat = "lora_unet_" + ours.replace(".", "_")
        high |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.tensor(8.0)}
        low |= {f"transformer.{theirs}.lora_A.weight": down.flip(0), f"transformer.{theirs}.lora_B.weight": 2 * up}
    for level, tensors in zip(LEVELS, (high, low), strict=True):
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        save_file(contiguous, models / "loras" / LORAS[level], {"format": "pt"})


def _shapes(weight: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    return (RANK, weight.shape[1]), (weight.shape[0], RANK)


def _write_official(folder: Path) -> None:
    """As Wan-AI/Wan2.2-I2V-A14B."""
    config = {
        "_class_name": "WanModel", "model_type": "i2v", "dim": 256, "num_heads": 4, "freq_dim": 256, "in_dim": 36,
        "out_dim": 16, "eps": 1e-6, **SIZES,
    }  # fmt: skip
    for part, level in zip(OFFICIAL, LEVELS, strict=True):
        (folder / part).mkdir(parents=True)
        save_file(expert(level), folder / part / WEIGHTS, {"format": "pt"})
        (folder / part / "config.json").write_text(json.dumps(config))
    torch.save(weights.load_vae(NANO).state_dict(), folder / "Wan2.1_VAE.pth")
    text = load_file(NANO / "text_encoder" / "model.safetensors")
    torch.save({_official_umt5(name): value for name, value in text.items()},
               folder / "models_t5_umt5-xxl-enc-bf16.pth")  # fmt: skip
    shutil.copytree(NANO / "tokenizer", folder / "google" / "umt5-xxl")


def _official_umt5(name: str) -> str:
    """The official name of a parameter of transformers' umT5."""
    top = {theirs: ours for ours, theirs in UMT5_TOP.items()}
    block = {theirs: ours for ours, theirs in UMT5_BLOCK.items()}
    if name in top:
        return top[name]
    _, _, index, rest = name.split(".", 3)  # encoder.block.0.layer...
    return f"blocks.{index}.{block[rest]}"


def _write_diffusers(folder: Path) -> None:
    """As Wan-AI/Wan2.2-I2V-A14B-Diffusers."""
    own = json.loads((NANO / "transformer" / "config.json").read_text("utf-8"))
    for name in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
        del own[name]
    for part, level in zip(DIFFUSERS, LEVELS, strict=True):
        (folder / part).mkdir(parents=True)
        state = {str(transformer_to_diffusers(name)): value for name, value in expert(level).items()}
        save_file(state, folder / part / WEIGHTS, {"format": "pt"})
        (folder / part / "config.json").write_text(json.dumps({**own, **SIZES}))
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(NANO / part, folder / part)
    index = {"_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9}
    (folder / "model_index.json").write_text(json.dumps(index))
