"""Write the trained parts as a diffusers pipeline folder in half precision: ``weights/nano``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wan_local.config import TransformerConfig, VAEConfig
from wan_local.model import WanTransformer
from wan_local.vae import WanVAE
from wan_local.weights.names import transformer_to_diffusers, vae_to_diffusers

LIMIT = 25_000_000  # bytes of the whole folder


def export(
    folder: Path, *, transformer: WanTransformer, vae: WanVAE, text_encoder: Any, image_encoder: Any, tokenizer: Path
) -> None:
    """Write every part; what stood there before is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    level = vae.config.num_res_blocks + 2  # residual blocks of a decoder level and the resampling behind them
    _write_model(folder / "transformer", transformer, transformer_to_diffusers, _transformer_json(transformer.config))
    _write_model(folder / "vae", vae, lambda name: vae_to_diffusers(name, level), _vae_json(vae.config))
    for name, encoder in (("text_encoder", text_encoder), ("image_encoder", image_encoder)):
        encoder.half().save_pretrained(folder / name)
        encoder.float()
    shutil.copytree(tokenizer, folder / "tokenizer")
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "WanImageToVideoPipeline",
            "image_encoder": ["transformers", "CLIPVisionModel"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        },
    )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size:,} bytes", flush=True)
    if size > LIMIT:
        raise SystemExit(f"{folder} is {size:,} bytes, over the limit of {LIMIT:,}")


def _write_model(folder: Path, model: nn.Module, rename: Callable[[str], str | None], config: dict[str, Any]) -> None:
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        theirs = rename(name)
        if theirs is None:
            raise ValueError(f"{name} has no name in diffusers")
        state[theirs] = value.detach().to(torch.float16).contiguous()
    folder.mkdir()
    save_file(state, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    _write_json(folder / "config.json", config)


def _transformer_json(config: TransformerConfig) -> dict[str, Any]:
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(config.patch_size),
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_dim,
        "out_channels": config.out_dim,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "image_dim": config.image_dim,
        "added_kv_proj_dim": config.dim,
        "pos_embed_seq_len": config.image_tokens,
        "rope_max_seq_len": 1024,
    }


def _vae_json(config: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.dim,
        "z_dim": config.z_dim,
        "dim_mult": list(config.dim_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_scales": [],
        "temperal_downsample": list(config.temporal_downsample),  # diffusers' own spelling
        "dropout": 0.0,
        "latents_mean": list(config.latents_mean),
        "latents_std": list(config.latents_std),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
