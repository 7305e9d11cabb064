"""The official release's encoders under transformers' names, with the configs that their shapes tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import transformers

from . import sizes
from .detect import count_layers
from .source import Entry, TensorSource

CLIP_HEAD_DIM = 80  # of CLIP ViT-H/14, which the official file can't tell

# -- umT5 (wan/modules/t5.py) --------------------------------------------------------------------------------

UMT5_TOP = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
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


def umt5(source: TensorSource) -> tuple[Any, TensorSource]:
    """Config and tensors of umT5's encoder.

    Raises:
        ParameterMismatch: a tensor that tells a size is missing.
        WrongModel: the shapes make no umT5.
    """
    entries = source.entries
    try:
        vocab, width = entries["token_embedding.weight"].shape
        inner = entries["blocks.0.attn.q.weight"].shape[0]
        buckets, heads = entries["blocks.0.pos_embedding.embedding.weight"].shape
        hidden = entries["blocks.0.ffn.fc1.weight"].shape[0]
        config = transformers.UMT5Config(
            vocab_size=vocab, d_model=width, d_kv=inner // heads, d_ff=hidden, num_heads=heads,
            num_layers=count_layers(entries, "blocks."), relative_attention_num_buckets=buckets,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )  # fmt: skip
    except KeyError as error:
        raise sizes.lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise sizes.impossible(source, "umT5 encoder", error) from error
    return config, source.renamed(_umt5_name)


def _umt5_name(name: str) -> str:
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"encoder.block.{found[1]}.{UMT5_BLOCK.get(found[2], found[2])}"
    return UMT5_TOP.get(name, name)


# -- CLIP (wan/modules/clip.py) ------------------------------------------------------------------------------

CLIP_TOP = {
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",  # transformers' own spelling
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}
CLIP_BLOCK = {
    "norm1": "layer_norm1", "attn.proj": "self_attn.out_proj", "norm2": "layer_norm2",
    "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2",
}  # fmt: skip


def clip(source: TensorSource) -> tuple[Any, TensorSource]:
    """Config and tensors of the vision tower; the text tower and the projection of the file are left unread.

    Raises:
        ParameterMismatch, WrongModel: as above.
    """
    entries = {name.removeprefix("visual."): e for name, e in source.entries.items() if name.startswith("visual.")}
    try:
        _, rows, width = entries["pos_embedding"].shape
        patch = entries["patch_embedding.weight"].shape[-1]
        hidden = entries["transformer.0.mlp.0.weight"].shape[0]
        config = transformers.CLIPVisionConfig(
            hidden_size=width, intermediate_size=hidden, num_hidden_layers=count_layers(entries, "transformer."),
            num_attention_heads=max(1, width // CLIP_HEAD_DIM), image_size=round((rows - 1) ** 0.5) * patch,
            patch_size=patch, hidden_act="gelu", projection_dim=width,
        )  # fmt: skip
        rows_of = [
            (f"visual.{name}", new, made)
            for name, entry in entries.items()
            if name != "head"
            for new, made in _clip_entries(name, entry)
        ]
    except KeyError as error:
        raise sizes.lacks(source, f"visual.{error.args[0]}") from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise sizes.impossible(source, "CLIP image encoder", error) from error
    return config, source.rebuilt(rows_of)


def _clip_entries(name: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    found = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if name == "cls_embedding":  # [1, 1, D]
        yield "embeddings.class_embedding", _viewed(entry, entry.shape[2:], lambda t: t.flatten())
    elif name == "pos_embedding":  # [1, rows, D]
        yield "embeddings.position_embedding.weight", _viewed(entry, entry.shape[1:], lambda t: t[0])
    elif not found:
        yield CLIP_TOP.get(name, name), entry
    elif found[2] != "attn.to_qkv":
        yield f"encoder.layers.{found[1]}.{CLIP_BLOCK.get(found[2], found[2])}.{found[3]}", entry
    else:  # q, k and v are one matrix in the official file
        third = entry.shape[0] // 3
        shape = (third, *entry.shape[1:])
        for i, side in enumerate("qkv"):
            part = _viewed(entry, shape, lambda t, i=i: t[i * third : (i + 1) * third])
            yield f"encoder.layers.{found[1]}.self_attn.{side}_proj.{found[3]}", part


def _viewed(entry: Entry, shape: tuple[int, ...], view: Any) -> Entry:
    return Entry(shape=tuple(shape), dtype=entry.dtype, read=lambda: view(entry.read()))
