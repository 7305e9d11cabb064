"""How large is the encoder? Told from its weights' shapes, under transformers' names, where no config lies beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import sizes
from .detect import count_layers
from .source import TensorSource, imported

if TYPE_CHECKING:
    import transformers

CLIP_HEAD_DIM = 80  # of CLIP ViT-H/14, which no shape tells


def umt5_config(source: TensorSource) -> transformers.UMT5Config:
    """transformers' config of umT5's encoder.

    Raises:
        ParameterMismatch: a tensor that tells a size is missing.
        WrongModel: the shapes make no umT5.
    """
    entries, first = source.entries, "encoder.block.0.layer."
    try:
        vocab, width = entries["shared.weight"].shape
        inner = entries[first + "0.SelfAttention.q.weight"].shape[0]
        buckets, heads = entries[first + "0.SelfAttention.relative_attention_bias.weight"].shape
        return imported("transformers", source.path).UMT5Config(
            vocab_size=vocab, d_model=width, d_kv=inner // heads, num_heads=heads,
            d_ff=entries[first + "1.DenseReluDense.wi_1.weight"].shape[0],
            num_layers=count_layers(entries, "encoder.block."), relative_attention_num_buckets=buckets,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )  # fmt: skip
    except KeyError as error:
        raise sizes.lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise sizes.impossible(source, "umT5 encoder", error) from error


def clip_config(source: TensorSource) -> transformers.CLIPVisionConfig:
    """transformers' config of CLIP's vision tower; errors as above."""
    entries = source.entries
    try:
        rows, width = entries["embeddings.position_embedding.weight"].shape
        patch = entries["embeddings.patch_embedding.weight"].shape[-1]
        return imported("transformers", source.path).CLIPVisionConfig(
            hidden_size=width, intermediate_size=entries["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=count_layers(entries, "encoder.layers."),
            num_attention_heads=max(1, width // CLIP_HEAD_DIM), image_size=round((rows - 1) ** 0.5) * patch,
            patch_size=patch, hidden_act="gelu", projection_dim=width,
        )  # fmt: skip
    except KeyError as error:
        raise sizes.lacks(source, str(error.args[0])) from error
    except (ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise sizes.impossible(source, "CLIP image encoder", error) from error
