"""Text and image encoders into transformers' classes: from their own folders, or from the official ``.pth`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ..encoders.image import ImageEncoder
from ..encoders.text import TextEncoder
from ..errors import UnreadableWeights
from . import detect, official_encoders, sizes
from .formats import diffusers_dir
from .load import AnyPath, build, check_dtypes, fill, needed, open_source
from .source import TensorSource, reason

OFFICIAL_TOKENIZER = "google/umt5-xxl"  # folder of the official release, beside the weights
SHARED, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one tensor that transformers lists under both names
TOWER = "vision_model."  # transformers 5 dropped this level; files and classes come with it and without


def load_text_encoder(
    path: AnyPath, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", operations: Any = nn
) -> TextEncoder:
    """Load umT5 and its tokenizer from a pipeline folder, diffusers or official layout.

    As in transformers, the matrices ``wo`` stay float32 where the rest is float16, whose range they exceed.

    Args:
        path: the pipeline folder.
        dtype: of the weights; None keeps what is stored.
        device: where they go.
        operations: not used: the network is transformers' own.

    Raises:
        UnreadableWeights: the encoder or its tokenizer is missing or broken.
        WrongModel: another model, with what it is; or a config that contradicts the weights.
        ParameterMismatch: missing, unexpected or misshapen parameters.
    """
    source = open_source(path, "text_encoder")
    place = Path(source.path)
    if source.format == diffusers_dir.NAME:
        _check_sign(source, "encoder.block.", "text_encoder")
        config, tokens = _config(source, transformers.UMT5Config), place.parent / "tokenizer"
        _check_layers(source, "num_layers", config.num_layers, "encoder.block.")
        source = _without_twin(source)
    else:
        _check_official(source, "token_embedding.weight", "blocks.0.attn.", "text_encoder")
        config, source = official_encoders.umt5(source)
        tokens = (place if place.is_dir() else place.parent) / OFFICIAL_TOKENIZER
    check_dtypes(source)
    tokenizer = _tokenizer(tokens)
    model: Any = build(source, "umT5 encoder", lambda: transformers.UMT5EncoderModel(config))
    wide = [name for name in source.entries if name.endswith(".wo.weight")]
    fill(model, source, dtype, device, tied=(TIED,), wide=wide)
    model.encoder.embed_tokens.weight = model.shared.weight
    return TextEncoder(tokenizer, model)


def load_image_encoder(
    path: AnyPath, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", operations: Any = nn
) -> ImageEncoder:
    """Load CLIP's vision tower from a pipeline folder, diffusers or official layout; arguments and errors as above."""
    source = open_source(path, "image_encoder")
    if source.format == diffusers_dir.NAME:
        source = _tower(source)
        _check_sign(source, "encoder.layers.", "image_encoder")
        config = _config(source, transformers.CLIPVisionConfig)
        _check_layers(source, "num_hidden_layers", config.num_hidden_layers, "encoder.layers.")
    else:
        _check_official(source, "visual.patch_embedding.weight", "visual.transformer.0.", "image_encoder")
        config, source = official_encoders.clip(source)
    check_dtypes(source)
    model: Any = build(source, "CLIP image encoder", lambda: transformers.CLIPVisionModel(config))
    if any(name.startswith(TOWER) for name in model.state_dict()):
        source = source.renamed(lambda name: TOWER + name)
    return ImageEncoder(_with_position_ids(fill(model, source, dtype, device), device))


def _check_official(source: TensorSource, sign: str, stem: str, part: str) -> None:
    """Raise for a file of anything but the official encoder, which either of two signs tells."""
    if sign in source.entries or any(name.startswith(stem) for name in source.entries):
        return
    plain = detect.canonical(source)
    found = detect.kind(plain)
    if found == detect.OTHERS["encoder.block.0.layer.0.SelfAttention.q.weight"] and part == "text_encoder":
        raise detect.wrong(plain, f"{found}, in one file without its tokenizer", "give the pipeline folder it is from")
    raise detect.wrong(plain, found, needed(part, found))


def _check_sign(source: TensorSource, stem: str, part: str) -> None:
    """Raise for a folder whose weights are another model's than its config says."""
    if not any(name.startswith(stem) for name in source.entries):
        plain = detect.canonical(source)
        found = detect.kind(plain)
        raise detect.wrong(plain, found, needed(part, found))


def _config(source: TensorSource, kind: Any) -> Any:
    given = dict(source.config)
    if kind is transformers.CLIPVisionConfig and isinstance(given.get("vision_config"), dict):
        given = given["vision_config"]  # a config of both towers
    try:
        return kind.from_dict(given)
    except Exception as error:  # transformers checks with errors of its own
        raise UnreadableWeights(
            f"{source.path} has a config.json that is none of this model ({reason(error)}); download it again"
        ) from error


def _check_layers(source: TensorSource, key: str, said: Any, stem: str) -> None:
    """A model of as many layers as the config says is only built if the weights have them."""
    there = detect.count_layers(source.entries, stem)
    if said != there:
        raise sizes.contradiction(source, key, f"the weights have {there} layers")


def _without_twin(source: TensorSource) -> TensorSource:
    """The embedding under one name; a file may have either or both."""
    rows = [
        (name, SHARED if name == TIED else name, entry)
        for name, entry in source.entries.items()
        if name != TIED or SHARED not in source.entries
    ]
    return source.rebuilt(rows)


def _tower(source: TensorSource) -> TensorSource:
    """The vision tower's weights alone: position ids are counted, not learned, and the projection is not used."""
    return source.rebuilt(
        (name, name.removeprefix(TOWER), entry)
        for name, entry in source.entries.items()
        if name != "visual_projection.weight" and name.removeprefix(TOWER) != "embeddings.position_ids"
    )


def _tokenizer(folder: Path) -> Any:
    if not folder.is_dir():
        raise UnreadableWeights(
            f"{folder} is not there; the text encoder needs its tokenizer, download that folder too"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if int(tokenizer.model_max_length) < 1:
            raise ValueError(f"model_max_length={tokenizer.model_max_length}")
    except Exception as error:  # several libraries, each with its own
        raise UnreadableWeights(f"{folder} is not a tokenizer ({reason(error)}); download it again") from error
    return tokenizer


def _with_position_ids(model: Any, device: torch.device | str) -> Any:
    """``position_ids`` is no weight and in no file: it would stay on the meta device."""
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            owner = model.get_submodule(name.rpartition(".")[0])
            ids = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
            owner.register_buffer("position_ids", ids, persistent=False)
    return model
