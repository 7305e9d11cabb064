"""Write the trained parts in half precision: a diffusers pipeline folder, and the pair as single files."""

from __future__ import annotations

import json
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
from wan_local.weights.sizes import TRAINED_FRAMES

LIMIT = 25_000_000  # bytes of the pipeline folder
PAIR_LIMIT = 12_000_000  # bytes of both experts


def write_index(folder: Path) -> None:
    """Write what names the parts of the pipeline, and copy nothing."""
    folder.mkdir(parents=True, exist_ok=True)
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


def write_vae(folder: Path, vae: WanVAE) -> None:
    """Write ``vae/`` into the pipeline folder, with its map to colours."""
    level = vae.config.num_res_blocks + 2  # residual blocks of a decoder level and the resampling behind them
    _write_model(folder / "vae", vae, lambda name: vae_to_diffusers(name, level), _vae_json(vae.config))


def write_transformer(folder: Path, transformer: WanTransformer) -> None:
    """Write ``transformer/`` into the pipeline folder."""
    _write_model(folder / "transformer", transformer, transformer_to_diffusers, _transformer_json(transformer.config))


def write_encoder(folder: Path, encoder: Any) -> None:
    """Write a text or an image encoder of transformers into ``folder``."""
    encoder.half().save_pretrained(folder)
    encoder.float()


def write_expert(folder: Path, level: str, expert: WanTransformer) -> None:
    """Write one of the pair as a single file under the official names, as the repackaged releases are.

    What the shapes of the weights don't tell is in the file's header, where the loader looks for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in expert.state_dict().items()}
    config = {
        "attention_head_dim": expert.config.head_dim,
        "text_len": expert.config.text_len,
        TRAINED_FRAMES: expert.config.trained_frames,
    }
    _save(state, expert_file(folder, level), {"config": json.dumps(config)})


def expert_file(folder: Path, level: str) -> Path:
    """Of one of the pair."""
    return folder / f"{level}_noise.safetensors"


def check_size(folder: Path, limit: int) -> None:
    """Stop if the files in ``folder`` are larger together."""
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size:,} bytes", flush=True)
    if size > limit:
        raise SystemExit(f"{folder} is {size:,} bytes, over the limit of {limit:,}")


def _write_model(folder: Path, model: nn.Module, rename: Callable[[str], str | None], config: dict[str, Any]) -> None:
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        theirs = rename(name)
        if theirs is None:
            raise ValueError(f"{name} has no name in diffusers")
        state[theirs] = value.detach().to("cpu", torch.float16).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    _save(state, folder / "diffusion_pytorch_model.safetensors", {})
    _write_json(folder / "config.json", config)


def _save(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write beside ``path`` and then in its place: the file there may be mapped by a model that is in use."""
    part = path.with_suffix(".tmp")
    save_file(state, part, {"format": "pt", **metadata})
    part.replace(path)


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
        TRAINED_FRAMES: config.trained_frames,
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
        "_latent_rgb": [list(row) for row in config.latent_rgb],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
