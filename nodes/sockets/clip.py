"""CLIP: a pipeline folder's text encoder as core calls it, and whatever is connected as a text encoder.

Core's class is inherited, so clones, hooks and whatever later versions add come with it; only the three parts
it works with are ours: the tokenizer, the network and the way the network is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...wan_local.encoders.text import TextEncoder
from ...wan_local.memory.activations import RESERVE, TEXT_WORK
from .. import host

KEY = "umt5xxl"  # core's name for this encoder in a dict of tokens


class SocketTextEncoder:
    """What is connected to a CLIP socket, ours or core's, as the library's text encoder."""

    def __init__(self, clip: Any) -> None:
        self._clip = clip

    def encode(self, prompts: list[str]) -> Tensor:
        """Prompt embeddings ``[B, S, D]``. Core's own encoder does not cut long prompts; zeros fill the shorter ones
        up."""
        embeddings = []
        for prompt in prompts:
            host.stop_if_asked()
            embeddings.append(self._clip.encode_from_tokens_scheduled(self._clip.tokenize(prompt))[0][0])
        longest = max(each.shape[1] for each in embeddings)
        return torch.cat([F.pad(each, (0, 0, 0, longest - each.shape[1])) for each in embeddings])


class HostedCLIP(host.CLIP):
    """The text encoder of a pipeline folder, in the host's care.

    Prompts are taken as the official code takes them: cleaned, cut at the length of training, no
    ``(word:1.2)``.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__(no_init=True)
        host.stop_between_layers(encoder.model)
        self.cond_stage_model = TextStage(encoder)
        self.tokenizer = PromptTokenizer()
        self.patcher = host.hold(self.cond_stage_model, *host.encoder_devices())
        host.minimal_vram_hooks(self.patcher)
        self.layer_idx = None
        self.use_clip_schedule = False
        self.apply_hooks_to_conds = None
        self.tokenizer_options: dict[str, Any] = {}

    def clone(self, *args: Any, **options: Any) -> HostedCLIP:
        copy = super().clone(*args, **options)
        copy.__class__ = type(self)  # core's clone is a plain CLIP and would load half of a model that can't be split
        return copy

    def load_model(self, tokens: Any = None) -> Any:
        """Bring the network to its device; where there is no room for it, it stays in host memory and works there.

        It is transformers' own, with torch's own layers: it runs whole or not at all.
        """
        stored = next(self.cond_stage_model.transformer.parameters()).dtype.itemsize
        work = TEXT_WORK[4 if stored >= 4 else 2] + RESERVE
        if self._has_room(work):
            host.load(self.patcher, work, whole=True)
        else:
            host.unload(self.patcher)  # of which a part may have stayed on the device
            size = self.patcher.model_size() / 1e9
            host.log.warning("no room for the text encoder (%.1f GB) on %s; it works on the CPU, slower", size,
                             self.patcher.load_device)  # fmt: skip
        return self.patcher

    def _has_room(self, work: int) -> bool:
        """Yes, too, where it works on a CPU or waits on the device."""
        device = self.patcher.load_device
        return device.type == "cpu" or self.patcher.offload_device == device or host.room_beside(self.patcher) >= work

    def __repr__(self) -> str:
        return "<text encoder of a Wan pipeline folder>"


class PromptTokenizer:
    """Keeps prompts as text: cleaning and cutting are the encoder's own and need the whole of it."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        """In core's shape: one list of (token, weight) for each text; here one token, the prompt."""
        return {KEY: [[(text, 1.0)]]}

    def state_dict(self) -> dict[str, Any]:
        return {}


class TextStage(nn.Module):
    """What core calls ``cond_stage_model``: the network and its device."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.transformer = encoder.model
        self.encoder = encoder
        self.execution_device: torch.device | None = None

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        """``[B, S, D]`` float32 on the result device, and no pooled output."""
        prompts = ["".join(token for token, _ in row) for row in tokens[KEY]]
        return self.encoder.encode(prompts).to(host.result_device(), torch.float32), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        self.execution_device = options.get("execution_device", self.execution_device)

    def reset_clip_options(self) -> None:
        self.execution_device = None
