"""The official release's encoders, and llama.cpp's umT5, under transformers' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from torch import Tensor

from . import sizes
from .source import Entry, TensorSource

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


def umt5(source: TensorSource) -> TensorSource:
    """The tensors of umT5's encoder under transformers' names."""
    return source.renamed(_umt5_name)


def _umt5_name(name: str) -> str:
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return f"encoder.block.{found[1]}.{UMT5_BLOCK.get(found[2], found[2])}"
    return UMT5_TOP.get(name, name)


# -- umT5 in llama.cpp's GGUF files (gguf-py/gguf/tensor_mapping.py, MODEL_ARCH.T5ENCODER) ----------------------

LLAMA_TOP = {"token_embd.weight": "shared.weight", "enc.output_norm.weight": "encoder.final_layer_norm.weight"}
LLAMA_BLOCK = {
    "attn_norm": "layer.0.layer_norm", "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_q": "layer.0.SelfAttention.q", "attn_k": "layer.0.SelfAttention.k", "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o", "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",  # the half with the activation
    "ffn_up": "layer.1.DenseReluDense.wi_1", "ffn_down": "layer.1.DenseReluDense.wo",
}  # fmt: skip


def llama_umt5(source: TensorSource) -> TensorSource:
    """The tensors of umT5's encoder under transformers' names."""
    return source.renamed(_llama_umt5_name)


def _llama_umt5_name(name: str) -> str:
    if found := re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name):
        return f"encoder.block.{found[1]}.{LLAMA_BLOCK.get(found[2], found[2])}.weight"
    return LLAMA_TOP.get(name, name)


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


def clip(source: TensorSource) -> TensorSource:
    """The vision tower; the text tower and the projection of the file are left unread.

    Raises:
        WrongModel: tensors with too few sides.
    """
    entries = {name.removeprefix("visual."): e for name, e in source.entries.items() if name.startswith("visual.")}
    try:
        return source.rebuilt(
            (f"visual.{name}", new, made)
            for name, entry in entries.items()
            if name != "head"
            for new, made in _clip_entries(name, entry)
        )
    except (ValueError, IndexError, TypeError) as error:
        raise sizes.impossible(source, "CLIP image encoder", error) from error


def _third(index: int, rows: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[index * rows : (index + 1) * rows]


def _clip_entries(name: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    found = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if name == "cls_embedding":  # [1, 1, D]
        yield "embeddings.class_embedding", entry.viewed(entry.shape[2:], lambda t: t.flatten())
    elif name == "pos_embedding":  # [1, rows, D]
        yield "embeddings.position_embedding.weight", entry.viewed(entry.shape[1:], lambda t: t[0])
    elif not found:
        yield CLIP_TOP.get(name, name), entry
    elif found[2] != "attn.to_qkv":
        yield f"encoder.layers.{found[1]}.{CLIP_BLOCK.get(found[2], found[2])}.{found[3]}", entry
    else:  # q, k and v are one matrix in the official file
        third = entry.shape[0] // 3
        shape = (third, *entry.shape[1:])
        for i, side in enumerate("qkv"):
            part = entry.viewed(shape, _third(i, third))
            yield f"encoder.layers.{found[1]}.self_attn.{side}_proj.{found[3]}", part
