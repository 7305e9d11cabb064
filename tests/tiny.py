"""The real classes at toy size, and synthetic checkpoints in the layouts real files have.

Names, shapes, metadata and file names are the real ones; only widths are small and values random. Official names are
the ones our networks carry, which `test_parameter_names` and `test_vae` hold to diffusers' and the official classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

TEXT_DIM, IMAGE_DIM, ROWS, HEADS, HEAD_DIM = 32, 24, 10, 2, 16
WIDTH = HEADS * HEAD_DIM
SPREAD = 0.2


def transformer(*, kind: str = "FLF2V", seed: int = 0) -> WanTransformer3DModel:
    """diffusers' transformer; ``kind`` is FLF2V, I2V, T2V or EXPERT, one of Wan2.2's two."""
    torch.manual_seed(seed)
    image = {} if kind in ("T2V", "EXPERT") else {"image_dim": IMAGE_DIM, "added_kv_proj_dim": WIDTH}
    if kind == "FLF2V":
        image["pos_embed_seq_len"] = ROWS
    model = WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, in_channels=16 if kind == "T2V" else 36,
        out_channels=16, text_dim=TEXT_DIM, freq_dim=32, ffn_dim=48, num_layers=2, **image,
    )  # fmt: skip
    return _spread(model)


def vae(seed: int = 1) -> AutoencoderKLWan:
    """diffusers' VAE."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(base_dim=4).eval()


def text_encoder(seed: int = 2) -> UMT5EncoderModel:
    """transformers' umT5."""
    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=300, d_model=TEXT_DIM, d_kv=16, d_ff=40, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return _spread(UMT5EncoderModel(config))


def image_encoder(seed: int = 3) -> CLIPVisionModel:
    """transformers' CLIP vision tower; 5 embeddings an image, so 10 for both."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28,
        patch_size=14, hidden_act="gelu", projection_dim=IMAGE_DIM,
    )  # fmt: skip
    return _spread(CLIPVisionModel(config))


def write_tokenizer(folder: Path, length: int = 12) -> None:
    """A tokenizer of single bytes, with umT5's special tokens."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, "pad_token": "<pad>",
        "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "right",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_expert_pipeline(folder: Path, boundary: float = 0.9) -> Path:
    """A complete folder of two experts, as diffusers saves its own pipeline: no image encoder."""
    write_tokenizer(folder / "tokenizer")
    pipeline = WanImageToVideoPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"), text_encoder=text_encoder(), vae=vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0), transformer=transformer(kind="EXPERT", seed=5),
        transformer_2=transformer(kind="EXPERT", seed=6), boundary_ratio=boundary,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def write_pipeline(folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """A complete diffusers pipeline folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "transformer": transformer(), "vae": vae(), "text_encoder": text_encoder(), "image_encoder": image_encoder(),
    }  # fmt: skip
    for name, model in parts.items():
        model.to(dtype).save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    return folder


def write_official(folder: Path, state: dict[str, torch.Tensor], shards: int = 3) -> Path:
    """The official transformer: ``state`` under official names, in shards with an index and its own config."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(state)
    table = {}
    for shard in range(shards):
        file = f"diffusion_pytorch_model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: state[name].contiguous() for name in names[shard::shards]}
        save_file(part, folder / file, {"format": "pt"})
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": table}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "_class_name": "WanModel", "model_type": "flf2v", "dim": WIDTH, "num_heads": HEADS, "num_layers": 2,
        "ffn_dim": 48, "freq_dim": 32, "in_dim": 36, "out_dim": 16, "text_len": 512, "eps": 1e-6,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_single(path: Path, state: dict[str, torch.Tensor], dtype: torch.dtype, prefix: str = "") -> Path:
    """ComfyUI's repackaged file. Its head width is in no shape, so a toy one says it in its metadata."""
    tensors = {prefix + name: value.to(dtype).contiguous() for name, value in state.items()}
    save_file(tensors, path, {"format": "pt", "config": json.dumps({"attention_head_dim": HEAD_DIM})})
    return path


def stored(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that is about to be written anew: older safetensors leave them in it, mapped."""
    return {name: value.clone() for name, value in load_file(path).items()}


def _spread(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * SPREAD)
    return model.eval()
