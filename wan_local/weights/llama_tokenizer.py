"""umT5's tokenizer out of a GGUF file's metadata, as a serialised sentencepiece model.

llama.cpp's converter takes the model apart (``tokenizer.ggml.tokens``, ``scores``, ``token_type`` and the options of
its normaliser); this puts it together again. Messages and numbers: ``src/sentencepiece_model.proto`` of
google/sentencepiece.
"""

from __future__ import annotations

import struct
from typing import Any

from ..errors import UnreadableWeights
from .formats.gguf_file import StoredList
from .source import TensorSource, reason, shown

KEY = "tokenizer.ggml."
MODEL = "t5"  # llama.cpp's name for sentencepiece models of unigrams
UNIGRAM, UNKNOWN, BYTE = 1, 2, 6  # of TrainerSpec.model_type and SentencePiece.type, which GGUF took over
VARINT, BYTES, FLOAT = 0, 2, 5  # protobuf's wire types


def carries(source: TensorSource) -> bool:
    """Whether the file brings a list of tokens."""
    return KEY + "tokens" in source.metadata


def sentencepiece_model(source: TensorSource) -> bytes:
    """The model in sentencepiece's own serialisation.

    Raises:
        UnreadableWeights: the metadata makes none.
    """
    try:
        return _model(source.metadata)
    except (ValueError, TypeError, struct.error, OverflowError) as error:
        raise UnreadableWeights(
            f"{source.path} carries tokens that make no umT5 tokenizer ({reason(error)}); give umT5's tokenizer as a "
            "folder"
        ) from error


def _model(metadata: Any) -> bytes:
    kind = metadata.get(KEY + "model")
    if kind != MODEL:
        raise ValueError(f"{KEY}model is {shown(kind)} and not {MODEL}")
    lists = {name: metadata.get(KEY + name) for name in ("tokens", "scores", "token_type")}
    tokens, scores, types = (_values(KEY + name, found) for name, found in lists.items())
    if not len(tokens) == len(scores) == len(types):
        raise ValueError(f"{len(tokens)} tokens have {len(scores)} scores and {len(types)} types")
    pieces = b"".join(
        _field(1, _field(1, token.encode()) + _field(2, float(score)) + _field(3, int(kind)))
        for token, score, kind in zip(tokens, scores, types, strict=True)
    )
    trainer = _field(3, UNIGRAM) + _field(4, len(tokens)) + _field(35, int(BYTE in types))
    charsmap = metadata.get(KEY + "precompiled_charsmap")
    normaliser = _field(2, bytes(_values("precompiled_charsmap", charsmap))) if charsmap is not None else b""
    normaliser += _field(3, int(metadata.get(KEY + "add_space_prefix", True)))
    normaliser += _field(4, int(metadata.get(KEY + "remove_extra_whitespaces", True))) + _field(5, 1)
    return pieces + _field(2, trainer) + _field(3, normaliser)


def _values(name: str, found: object) -> list[Any]:
    if isinstance(found, StoredList):
        return found.read()
    if not isinstance(found, list):
        raise ValueError(f"{name} is missing")
    return found


def _field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | FLOAT) + struct.pack("<f", value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    if value < 0:
        raise ValueError(f"{value} is below 0")
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
