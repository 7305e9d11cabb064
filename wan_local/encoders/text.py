"""Prompts to the embeddings that the transformer's text branch reads.

The network is transformers' ``UMT5EncoderModel``, the tokenizer transformers' own; ours is what goes in and what is
done with what is behind the prompt. Follows Wan-Video/Wan2.1 ``wan/modules/t5.py`` (``T5EncoderModel``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from .text_clean import clean

MAX_TEXT_LEN = 512  # text embeddings that the released model was trained with; a tokenizer may ask for fewer


class Tokenizer(Protocol):
    """What is asked of a tokenizer, transformers' or our own."""

    model_max_length: int

    def __call__(
        self, prompts: list[str], *, padding: str, truncation: bool, max_length: int, return_tensors: str
    ) -> Mapping[str, Tensor]: ...


class TextEncoder:
    """umT5 as Wan uses it.

    Args:
        tokenizer: a transformers tokenizer.
        model: transformers ``UMT5EncoderModel``.
        text_len: embeddings a prompt; None takes the tokenizer's ``model_max_length``, at most 512.
    """

    def __init__(self, tokenizer: Tokenizer, model: nn.Module, text_len: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.text_len = text_len or min(int(tokenizer.model_max_length), MAX_TEXT_LEN)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask ``[B, text_len]``; a long prompt is cut and still ends with the end token."""
        rows = self.tokenizer(
            [clean(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.text_len,
            return_tensors="pt",
        )
        return rows["input_ids"], rows["attention_mask"]

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Embeddings of each prompt, zero behind its end.

        Args:
            prompts: any texts.

        Returns:
            ``[B, text_len, width]`` in the dtype and on the device of the model.
        """
        # One at a time: sums of another batch may round otherwise, and a prompt's must not depend on its company.
        return torch.cat([self._encode_one(prompt) for prompt in prompts])

    def _encode_one(self, prompt: str) -> Tensor:
        device = next(self.model.parameters()).device
        ids, mask = (rows.to(device) for rows in self.tokenize([prompt]))
        rows = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        # where, not a product: what is padded may hold anything, NaN included
        return torch.where(mask[..., None].bool(), rows, rows.new_zeros(()))
