"""umT5's tokenizer from what text encoder files carry, with the library it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import UnreadableWeights
from .text import MAX_TEXT_LEN

PAD, END = 0, 1  # umT5's, as in T5


class SentencePieceTokenizer:
    """As much of a transformers tokenizer as :class:`~wan_local.encoders.text.TextEncoder` asks for.

    Args:
        model: a serialised sentencepiece model, or what makes one when the first prompt comes.
        path: of the file it is from, for messages.

    Raises:
        UnreadableWeights: no such model, or the library is not installed; at the first prompt, if it is made then.
    """

    model_max_length: int = MAX_TEXT_LEN

    def __init__(self, model: bytes | Callable[[], bytes], path: str) -> None:
        self._model, self._path = model, path
        if isinstance(model, bytes):
            _ = self._processor

    @cached_property
    def _processor(self) -> Any:
        model, path = self._model, self._path
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise UnreadableWeights(
                f"{path} carries a sentencepiece tokenizer; install it with `pip install sentencepiece`, or give the "
                "tokenizer's folder"
            ) from error
        try:
            return SentencePieceProcessor(model_proto=model if isinstance(model, bytes) else model())
        except (RuntimeError, ValueError, TypeError) as error:
            raise UnreadableWeights(f"{path} carries a broken tokenizer; download it again") from error

    def __call__(self, prompts: list[str], *, max_length: int = MAX_TEXT_LEN, **settings: Any) -> dict[str, Tensor]:
        """Ids and mask ``[B, max_length]``, padded behind; what is cut still ends with the end token."""
        rows = [ids[: max_length - 1] + [END] for ids in self._processor.encode(prompts)]
        ids = torch.full((len(rows), max_length), PAD)
        mask = torch.zeros_like(ids)
        for row, found in enumerate(rows):
            ids[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = 1
        return {"input_ids": ids, "attention_mask": mask}
