"""umT5 as llama.cpp's ``convert_hf_to_gguf.py`` and ``llama-quantize`` write it: its names, types and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from torch import Tensor

from tests.wan_local.weights.ggml_encoders import encode

TIED = "encoder.embed_tokens.weight"
UNKNOWN, CONTROL, UNUSED, BYTE, NORMAL = 2, 3, 5, 6, 1


def write_umt5(
    path: Path, state: dict[str, Tensor], kind: str, sentences: bytes | None, *, table: str | None = None
) -> Path:
    """A file of every block matrix as ``kind``; ``table`` is the type of the table of words, by default the same."""
    blocks = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.block."))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, blocks)
    writer = gguf.GGUFWriter(path, arch=gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.T5ENCODER])
    writer.add_name("umt5-xxl-encoder")
    writer.add_block_count(blocks)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if sentences is not None:
        _add_tokenizer(writer, sentences, len(state["shared.weight"]))
    for name, value in state.items():
        if name == TIED:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs, name
        used = (table or kind) if name == "shared.weight" else kind
        if value.ndim == 1 or "relative_attention_bias" in name:
            writer.add_tensor(theirs, value.numpy())
        elif used in ("F16", "BF16"):
            data = gguf.quants.quantize(value.numpy(), gguf.GGMLQuantizationType[used])
            writer.add_tensor(theirs, data, raw_dtype=gguf.GGMLQuantizationType[used])
        else:
            writer.add_tensor(theirs, encode(value.numpy(), used), raw_dtype=gguf.GGMLQuantizationType[used])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, sentences: bytes, rows: int) -> None:
    """As ``set_vocab`` of llama.cpp's T5 models; the table may have more rows than there are pieces."""
    model = proto.ModelProto.FromString(sentences)
    words = sentencepiece.SentencePieceProcessor(model_proto=sentences)
    tokens = [f"[PAD{index}]".encode() for index in range(rows)]
    scores, types = [-10000.0] * rows, [UNUSED] * rows
    for index in range(words.vocab_size()):
        tokens[index], scores[index] = words.id_to_piece(index).encode(), words.get_score(index)
        types[index] = (
            UNKNOWN if words.is_unknown(index) else CONTROL if words.is_control(index)
            else UNUSED if words.is_unused(index) else BYTE if words.is_byte(index) else NORMAL
        )  # fmt: skip
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    if model.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
