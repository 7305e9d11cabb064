"""Text and image encoders into transformers' classes: from their own folders, or from the official ``.pth`` files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from ..encoders.image import ImageEncoder
from ..encoders.text import TextEncoder
from ..errors import ParameterMismatch, UnreadableWeights
from . import detect
from .formats import diffusers_dir
from .formats.folder import read_shards
from .load import AnyPath, check_dtypes, fill, open_source
from .source import Entry, TensorSource

OFFICIAL_TOKENIZER = "google/umt5-xxl"  # folder of the official release, beside the weights
CLIP_HEAD_DIM = 80  # of CLIP ViT-H/14, which the official file can't tell


def load_text_encoder(
    path: AnyPath, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", operations: Any = nn
) -> TextEncoder:
    """Load umT5 and its tokenizer from a pipeline folder, diffusers or official layout.

    Args:
        path: the pipeline folder.
        dtype: of the weights; None keeps what is stored.
        device: where they go.
        operations: not used: the network is transformers' own.

    Raises:
        UnreadableWeights: the encoder or its tokenizer is missing or broken.
        ParameterMismatch: parameters that do not fit.
    """
    folder = diffusers_dir.part_folder(Path(path), "text_encoder")
    if folder is not None:
        model = _pretrained(transformers.UMT5EncoderModel, folder, dtype)
        return TextEncoder(_tokenizer(folder.parent / "tokenizer"), model.to(device))
    source = open_source(path, "text_encoder")
    check_dtypes(source)
    config, source = _official_umt5(source)
    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(config)
    place = Path(source.path)
    tokenizer = _tokenizer((place if place.is_dir() else place.parent) / OFFICIAL_TOKENIZER)
    return TextEncoder(tokenizer, fill(model, source, dtype, device))


def load_image_encoder(
    path: AnyPath, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", operations: Any = nn
) -> ImageEncoder:
    """Load CLIP's vision tower from a pipeline folder, diffusers or official layout; arguments and errors as above."""
    folder = diffusers_dir.part_folder(Path(path), "image_encoder")
    if folder is not None:
        return ImageEncoder(_pretrained(transformers.CLIPVisionModel, folder, dtype).to(device))
    source = open_source(path, "image_encoder")
    check_dtypes(source)
    config, source = _official_clip(source)
    with torch.device("meta"):
        model = transformers.CLIPVisionModel(config)
    names = set(model.state_dict())
    if not any(name.startswith("vision_model.") for name in names):  # transformers 5 dropped the level
        source = source.renamed(lambda name: name.removeprefix("vision_model."))
    return ImageEncoder(fill(_with_position_ids(model, config), source, dtype, device))


def _pretrained(kind: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    read_shards(folder)  # a broken or cut file is told by our own reader, with the bytes that are missing
    spelled = "dtype" if _version() >= (4, 56) else "torch_dtype"
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, spelled: dtype or "auto"}
    try:
        model, info = kind.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableWeights(f"{folder} can't be loaded ({reason}); download it again") from error
    if absent := tuple(sorted(info["missing_keys"])):  # transformers fills these with random values
        raise ParameterMismatch(
            f"{folder} does not fit the model: parameters {len(absent)} missing ({', '.join(absent[:3])}); "
            "use an unmodified folder of this model",
            missing=absent,
        )
    return model.requires_grad_(False).eval()


def _tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise UnreadableWeights(
            f"{folder} is not there; the text encoder needs its tokenizer, download that folder too"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableWeights(f"{folder} is not a tokenizer ({reason}); download it again") from error


def _version() -> tuple[int, int]:
    major, minor = re.findall(r"\d+", transformers.__version__)[:2]
    return int(major), int(minor)


# -- official umT5 (wan/modules/t5.py) -----------------------------------------------------------------------

UMT5_BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",  # the half with the activation
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}


def _official_umt5(source: TensorSource) -> tuple[Any, TensorSource]:
    entries = source.entries
    try:
        vocab, width = entries["token_embedding.weight"].shape
        inner = entries["blocks.0.attn.q.weight"].shape[0]
        buckets, heads = entries["blocks.0.pos_embedding.embedding.weight"].shape
        hidden = entries["blocks.0.ffn.fc1.weight"].shape[0]
    except KeyError as error:
        raise detect.lacks(source, str(error.args[0])) from error
    config = transformers.UMT5Config(
        vocab_size=vocab, d_model=width, d_kv=inner // heads, d_ff=hidden, num_heads=heads,
        num_layers=detect.count_layers(entries, "blocks."), relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    renamed = source.renamed(_umt5_name)
    # transformers lists the embedding under two names that share one tensor
    both = {**renamed.entries, "encoder.embed_tokens.weight": renamed.entries["shared.weight"]}
    return config, TensorSource(format=source.format, path=source.path, entries=both)


def _umt5_name(name: str) -> str:
    if name == "token_embedding.weight":
        return "shared.weight"
    if name == "norm.weight":
        return "encoder.final_layer_norm.weight"
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"encoder.block.{found[1]}.{UMT5_BLOCK.get(found[2], found[2])}"
    return name


# -- official CLIP (wan/modules/clip.py) ---------------------------------------------------------------------

CLIP_TOP = {
    "patch_embedding.weight": "vision_model.embeddings.patch_embedding.weight",
    "pre_norm.weight": "vision_model.pre_layrnorm.weight",  # transformers' own spelling
    "pre_norm.bias": "vision_model.pre_layrnorm.bias",
    "post_norm.weight": "vision_model.post_layernorm.weight",
    "post_norm.bias": "vision_model.post_layernorm.bias",
}
CLIP_BLOCK = {
    "norm1": "layer_norm1", "attn.proj": "self_attn.out_proj", "norm2": "layer_norm2",
    "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2",
}  # fmt: skip


def _official_clip(source: TensorSource) -> tuple[Any, TensorSource]:
    """The vision tower alone; the text tower and the projection of the file are left unread."""
    entries = {name.removeprefix("visual."): e for name, e in source.entries.items() if name.startswith("visual.")}
    try:
        _, rows, width = entries["pos_embedding"].shape
        patch = entries["patch_embedding.weight"].shape[-1]
        hidden = entries["transformer.0.mlp.0.weight"].shape[0]
    except KeyError as error:
        raise detect.lacks(source, f"visual.{error.args[0]}") from error
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=detect.count_layers(entries, "transformer."),
        num_attention_heads=max(1, width // CLIP_HEAD_DIM), image_size=round((rows - 1) ** 0.5) * patch,
        patch_size=patch, hidden_act="gelu", projection_dim=width,
    )  # fmt: skip
    renamed: dict[str, Entry] = {}
    for name, entry in entries.items():
        if name != "head":
            renamed |= _clip_entries(name, entry)
    return config, TensorSource(format=source.format, path=source.path, entries=renamed)


def _clip_entries(name: str, entry: Entry) -> dict[str, Entry]:
    if name in CLIP_TOP:
        return {CLIP_TOP[name]: entry}
    if name == "cls_embedding":  # [1, 1, D]
        return {"vision_model.embeddings.class_embedding": _viewed(entry, entry.shape[2:], lambda t: t.flatten())}
    if name == "pos_embedding":  # [1, rows, D]
        return {"vision_model.embeddings.position_embedding.weight": _viewed(entry, entry.shape[1:], lambda t: t[0])}
    found = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if not found:
        return {name: entry}
    stem = f"vision_model.encoder.layers.{found[1]}."
    if found[2] != "attn.to_qkv":
        return {f"{stem}{CLIP_BLOCK.get(found[2], found[2])}.{found[3]}": entry}
    third = entry.shape[0] // 3  # q, k and v are one matrix in the official file
    shape = (third, *entry.shape[1:])
    return {
        f"{stem}self_attn.{side}_proj.{found[3]}": _viewed(entry, shape, lambda t, i=i: t[i * third : (i + 1) * third])
        for i, side in enumerate("qkv")
    }


def _viewed(entry: Entry, shape: tuple[int, ...], view: Any) -> Entry:
    return Entry(shape=tuple(shape), dtype=entry.dtype, read=lambda: view(entry.read()))


def _with_position_ids(model: Any, config: Any) -> Any:
    """``position_ids`` is no weight and in no file: it would stay on the meta device."""
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            owner = model.get_submodule(name.rpartition(".")[0])
            owner.register_buffer("position_ids", torch.arange(buffer.shape[-1]).expand(1, -1), persistent=False)
    return model
