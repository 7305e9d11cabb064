"""Text and image encoders into transformers' classes: from folders, from the official ``.pth`` files, from one file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..encoders.image import ImageEncoder
from ..encoders.sentencepiece import SentencePieceTokenizer
from ..encoders.text import TextEncoder
from ..errors import UnreadableWeights
from ..operations import Operations
from ..quantised import Embedding, Linear, packing_of
from ..words import counted
from . import detect, encoder_sizes, llama_tokenizer, official_encoders, sizes
from .formats import diffusers_dir
from .load import AnyPath, OnBytes, build, check_dtypes, fill, needed, open_source
from .source import DTYPES, FLOATS, TensorSource, imported, not_importable, reason

if TYPE_CHECKING:
    import transformers

TOKENIZERS = ("google/umt5-xxl", "tokenizer", "../tokenizer")  # where it lies beside a file of weights
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model")  # one of them is in the folder
SENTENCES = "spiece_model"  # ComfyUI's files carry the tokenizer as bytes under this name
SHARED, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one tensor that transformers lists under both names
TOWER = "vision_model."  # transformers 5 dropped this level; files and classes come with it and without
T5_IN_TRANSFORMERS = "encoder.block.0.layer.0.SelfAttention.q.weight"
T5_IN_LLAMA = "enc.blk.0.attn_q.weight"
CLIP_IN_TRANSFORMERS = "embeddings.patch_embedding.weight"
TEXT_ROOTS = ("shared.", "encoder.")  # how the names of all their parameters begin
IMAGE_ROOTS = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")


def load_text_encoder(
    path: AnyPath,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Operations = nn,
    *,
    tokenizer: AnyPath | None = None,
    tokenizer_of: AnyPath | None = None,
    on_bytes: OnBytes | None = None,
) -> TextEncoder:
    """Load umT5 and its tokenizer.

    As in transformers, the matrices ``wo`` stay float32 where the rest is float16, whose range they exceed. Packed
    matrices (fp8, GGUF and the like) and a packed table of words stay packed and are calculated with in ``dtype``, by
    default and in place of float16 bfloat16.

    Args:
        path: a pipeline folder (diffusers or official), or one file: official names or transformers', as ComfyUI and
            Kijai repackage it, or GGUF with llama.cpp's.
        dtype: of the weights; None keeps what is stored, and takes that of most of them where it is not one.
        device: where they go.
        operations: not used: the network is transformers' own.
        tokenizer: folder of the tokenizer; None takes what lies in the file or beside it.
        tokenizer_of: a pipeline folder whose tokenizer will do where there is none with the encoder.
        on_bytes: called with the bytes that are there and with those of all; what it raises ends the loading.

    Raises:
        UnreadableWeights: the encoder or its tokenizer is missing or broken.
        WrongModel: another model, with what it is; or a config that contradicts the weights.
        ParameterMismatch: missing or misshapen parameters. What belongs to no layer is a notice (``notices.py``).
    """
    source = open_source(path, "text_encoder")
    opened, folder = source, tokenizer_folder(source, tokenizer, tokenizer_of)
    config, source = text_parts(source)
    check_dtypes(source)
    words = _tokenizer(folder) if folder is not None else _carried(opened)
    model: Any = build(source, "umT5 encoder", lambda: _library(source.path).UMT5EncoderModel(config))
    wide = [name for name in source.entries if name.endswith(".wo.weight")]
    if source.packed:
        dtype = torch.bfloat16 if dtype in (None, torch.float16) else dtype
        hold_packed(model, source)
        _hold_packed_table(model, source, dtype)
    dtype = dtype or _of_most(source, wide)
    fill(model, source, dtype, device, tied=(TIED,), wide=wide, keep_packed=True, on_bytes=on_bytes)
    for layer in model.modules():
        if packing_of(layer) is not None:
            # transformers takes the dtype of a weight for that of the calculation, unless it is int8
            layer.weight = nn.Parameter(layer.weight.view(torch.int8), requires_grad=False)
    model.encoder.embed_tokens = model.shared
    return TextEncoder(words, model)


def load_image_encoder(
    path: AnyPath,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Operations = nn,
    *,
    on_bytes: OnBytes | None = None,
) -> ImageEncoder:
    """Load CLIP's vision tower from a pipeline folder or one file; arguments and errors as above."""
    config, source = image_parts(open_source(path, "image_encoder"))
    check_dtypes(source)
    model = build(source, "CLIP image encoder", lambda: _library(source.path).CLIPVisionModel(config))
    if any(name.startswith(TOWER) for name in model.state_dict()):
        source = source.renamed(lambda name: TOWER + name)
    if source.packed:
        dtype = dtype or torch.bfloat16
        hold_packed(model, source)
    dtype = dtype or _of_most(source)
    fill(model, source, dtype, device, keep_packed=True, on_bytes=on_bytes)
    return ImageEncoder(_with_position_ids(model, device))


def text_parts(source: TensorSource) -> tuple[transformers.UMT5Config, TensorSource]:
    """Config of umT5 and its weights under transformers' names, without twins; what else there is is ``extra``.

    Raises:
        WrongModel, ParameterMismatch, UnreadableWeights: as :func:`load_text_encoder`.
    """
    if source.format == diffusers_dir.NAME:
        _check_sign(source, "encoder.block.", "text_encoder")
        config = _config(source, _library(source.path).UMT5Config)
        _check_layers(source, "num_layers", config.num_layers, "encoder.block.")
        return config, _without_twin(source).only(lambda name: name.startswith(TEXT_ROOTS))
    words = _sentences(source)
    source = replace(source, entries={name: entry for name, entry in source.entries.items() if name != words})
    source = _of_checkpoint(source, T5_IN_TRANSFORMERS)
    entries = source.entries
    if T5_IN_TRANSFORMERS in entries:
        source = _without_twin(source)
    elif T5_IN_LLAMA in entries:
        source = official_encoders.llama_umt5(source)
    else:
        _check_official(source, "token_embedding.weight", "blocks.0.attn.", "text_encoder")
        source = official_encoders.umt5(source)
    return encoder_sizes.umt5_config(source), source.only(lambda name: name.startswith(TEXT_ROOTS))


def image_parts(source: TensorSource) -> tuple[transformers.CLIPVisionConfig, TensorSource]:
    """As :func:`text_parts`, of CLIP's vision tower; names without the level :data:`TOWER`."""
    if source.format == diffusers_dir.NAME:
        source = _tower(source)
        _check_sign(source, "encoder.layers.", "image_encoder")
        config = _config(source, _library(source.path).CLIPVisionConfig)
        _check_layers(source, "num_hidden_layers", config.num_hidden_layers, "encoder.layers.")
        return config, source
    source = _of_checkpoint(source, TOWER + CLIP_IN_TRANSFORMERS)
    if any(name.removeprefix(TOWER) == CLIP_IN_TRANSFORMERS for name in source.entries):
        source = _tower(source)
    else:
        _check_official(source, "visual.patch_embedding.weight", "visual.transformer.0.", "image_encoder")
        source = official_encoders.clip(source)
    return encoder_sizes.clip_config(source), source


def _library(path: str) -> ModuleType:
    """transformers, for the encoder at ``path``."""
    return imported("transformers", path)


def hold_packed(model: nn.Module, source: TensorSource) -> None:
    """Put layers that can hold a packed weight in the place of those that will get one."""
    for name, layer in list(model.named_modules()):
        entry = source.entries.get(f"{name}.weight")
        if type(layer) is nn.Linear and entry is not None and entry.packing is not None:
            with torch.device("meta"):
                ours = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, ours)


def _hold_packed_table(model: Any, source: TensorSource, dtype: torch.dtype | None) -> None:
    """The same for the table of words."""
    entry = source.entries[SHARED]
    if entry.packing is None or dtype is None:
        return
    with torch.device("meta"):
        model.shared = Embedding(*model.shared.weight.shape)
    model.shared.dtype = dtype


def _of_most(source: TensorSource, apart: Collection[str] = ()) -> torch.dtype | None:
    """What most values are stored in where the dtypes are several, as those of half-precision GGUF files, whose norms
    are float32: the layers calculate in one. None where it is one. Those named ``apart`` may have their own."""
    sizes_of: dict[torch.dtype | None, int] = {}
    for name, entry in source.entries.items():
        if name not in apart and entry.dtype in FLOATS:
            sizes_of[DTYPES[entry.dtype]] = sizes_of.get(DTYPES[entry.dtype], 0) + entry.size
    return max(sizes_of, key=lambda dtype: sizes_of[dtype]) if len(sizes_of) > 1 else None


def _check_official(source: TensorSource, sign: str, stem: str, part: str) -> None:
    """Raise for a file of anything but the official encoder, which either of two signs tells."""
    if sign in source.entries or any(name.startswith(stem) for name in source.entries):
        return
    plain = detect.canonical(source)
    found = detect.kind(plain)
    raise detect.wrong(plain, found, needed(part, found))


def _check_sign(source: TensorSource, stem: str, part: str) -> None:
    """Raise for a folder whose weights are another model's than its config says."""
    if not any(name.startswith(stem) for name in source.entries):
        plain = detect.canonical(source)
        found = detect.kind(plain)
        raise detect.wrong(plain, found, needed(part, found))


def _config(source: TensorSource, kind: Any) -> Any:
    towers = source.config.get("vision_config") if kind.model_type == "clip_vision_model" else None
    given = towers if isinstance(towers, dict) else dict(source.config)  # a config may be of both towers
    try:
        return kind.from_dict(given)
    except Exception as error:  # transformers checks with errors of its own
        raise UnreadableWeights(
            f"{source.path} has a config.json that is none of this model ({reason(error)}); download it again"
        ) from error


def _check_layers(source: TensorSource, key: str, said: int, stem: str) -> None:
    """A model of as many layers as the config says is only built if the weights have them."""
    there = detect.count_layers(source.entries, stem)
    if said != there:
        raise sizes.contradiction(source, key, f"the weights have {counted(there, 'layer')}")


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
    tower = source.rebuilt(
        (name, name.removeprefix(TOWER), entry)
        for name, entry in source.entries.items()
        if name != "visual_projection.weight" and name.removeprefix(TOWER) != "embeddings.position_ids"
    )
    return tower.only(lambda name: name.startswith(IMAGE_ROOTS))


def _of_checkpoint(source: TensorSource, sign: str) -> TensorSource:
    """The one model of a whole checkpoint that has the name ``sign``, without what stands before all its names."""
    prefix = next((name.removesuffix(sign) for name in source.entries if name.endswith("." + sign)), "")
    if not prefix or sign in source.entries:
        return source
    return source.only(lambda name: name.startswith(prefix)).renamed(lambda name: name.removeprefix(prefix))


def tokenizer_folder(source: TensorSource, given: AnyPath | None = None, spare: AnyPath | None = None) -> Path | None:
    """Where the tokenizer of a text encoder lies: as asked for, beside the weights, or in the folder ``spare``, which
    may be any pipeline's; None if it is in their file.

    The folder need not be there.
    """
    place = Path(source.path)
    if given is not None:
        return Path(given)
    if source.format == diffusers_dir.NAME:
        own = place.parent / "tokenizer"
    elif _sentences(source) is not None or llama_tokenizer.carries(source):
        return None
    else:
        folder = place if place.is_dir() else place.parent
        own = _tokenizer_in(folder) or folder / TOKENIZERS[0]
    if own.is_dir() or spare is None:
        return own
    return _tokenizer_in(Path(spare)) or own


def _tokenizer_in(folder: Path) -> Path | None:
    return next((folder / name for name in TOKENIZERS if (folder / name).is_dir()), None)


def _sentences(source: TensorSource) -> str | None:
    """Name of the tokenizer's bytes; of a whole checkpoint a prefix stands before it, which is not the weights'."""
    names = [name for name in source.entries if name.rpartition(".")[2] == SENTENCES]
    return names[0] if len(names) == 1 else None


def _carried(source: TensorSource) -> SentencePieceTokenizer:
    name = _sentences(source)
    if name is None:  # making one of its lists takes a second
        return SentencePieceTokenizer(lambda: llama_tokenizer.sentencepiece_model(source), source.path)
    return SentencePieceTokenizer(bytes(source.entries[name].read().flatten().numpy()), source.path)


def check_text_encoder(path: AnyPath, tokenizer: AnyPath | None = None, tokenizer_of: AnyPath | None = None) -> None:
    """As far as headers tell, raise what :func:`load_text_encoder` would; arguments as there."""
    source = open_source(path, "text_encoder")
    text_parts(source)
    folder = tokenizer_folder(source, tokenizer, tokenizer_of)
    if folder is not None:
        _check_tokenizer(folder)


def _check_tokenizer(folder: Path) -> None:
    if not folder.is_dir():
        raise UnreadableWeights(
            f"{folder} is not there; the text encoder needs its tokenizer, download that folder too, or name it"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UnreadableWeights(
            f"{folder} holds no tokenizer (none of {', '.join(TOKENIZER_FILES)}); name the folder that has it"
        )


def _tokenizer(folder: Path) -> Any:
    _check_tokenizer(folder)
    transformers = _library(str(folder))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if int(tokenizer.model_max_length) < 1:
            raise ValueError(f"model_max_length={tokenizer.model_max_length}")
    except ImportError as error:
        raise not_importable(str(folder), "transformers", error) from error
    except Exception as error:  # several libraries, each with its own
        raise UnreadableWeights(f"{folder} is not a tokenizer ({reason(error)}); download it again") from error
    return tokenizer


def _with_position_ids(model: nn.Module, device: torch.device | str) -> nn.Module:
    """``position_ids`` is no weight and in no file: it would stay on the meta device."""
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta and name.endswith("position_ids"):
            owner = model.get_submodule(name.rpartition(".")[0])
            ids = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
            owner.register_buffer("position_ids", ids, persistent=False)
    return model
