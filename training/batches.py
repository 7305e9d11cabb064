"""Batches of the clips that are there, of one size at a time, for what learns the velocity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from wan_local.settings import published_negative_prompt

from .dataset import Shards
from .tokenizer import TEXT_LEN

NO_PROMPT = 0.1  # share of clips trained without their caption, for classifier-free guidance
REFRESH = 100  # steps after which new shards are looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some clips on the device.

    Attributes:
        latents: ``[B, 16, T, h, w]`` float32, normalised.
        condition: ``[B, 20, T, h, w]`` float32: mask, then latents of what is known.
        text: ``[B, S, text_dim]`` float32, zero behind the prompt.
        image: ``[B, rows, image_dim]`` float32, of both ends, or of the one that ``image_row`` says.
        image_row: see :meth:`wan_local.model.WanTransformer.forward`.
        bare: ``[B]`` bool: whether the first and the last frame are known and no other.
    """

    latents: Tensor
    condition: Tensor
    text: Tensor
    image: Tensor
    bare: Tensor
    image_row: int | None = None

    def levels(self, shift: float, start: float = 0.0, end: float = 1.0) -> Tensor:
        """Noise levels ``[B]``: of a sampler of this shift, between two shares of its time; every batch sees all."""
        count = len(self.latents)
        places = torch.arange(count, device=self.latents.device) + torch.rand(count, device=self.latents.device)
        uniform = start + (end - start) * places / count
        return shift * uniform / (1 + (shift - 1) * uniform)

    def seen(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """What the transformer is given: ``(1 - sigma) * x0 + sigma * noise``, then the condition."""
        level = sigma.view(-1, 1, 1, 1, 1)
        return torch.cat(((1 - level) * self.latents + level * noise, self.condition), dim=1)


class Batches:
    """Draws batches from shards of several sizes.

    Args:
        shards: of each size; those that have none yet are left out, and there is one line if none has.
        sizes: clips in a batch of each.
        text_encoder: on ``device``.
        tokenizer: its folder.
        device: where batches go.
    """

    def __init__(
        self, shards: list[Shards], sizes: list[int], text_encoder: nn.Module, tokenizer: str, device: torch.device
    ) -> None:
        words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        blank = words(["", published_negative_prompt()], padding="max_length", truncation=True, max_length=TEXT_LEN)
        self._no_prompts = torch.tensor(blank["input_ids"])
        self._shards, self._sizes, self._text_encoder, self._device = shards, sizes, text_encoder, device
        self._data: list[tuple[dict[str, Tensor], int]] = []
        self._counted = -1

    def draw(self, step: int, *, alike: bool = False) -> Batch:
        """The batch of a step, from torch's global generator; sizes take turns.

        With ``alike`` the same ends are known of all its clips, and ``image`` has the embeddings of those alone: a
        model that looks at the images takes those of both or of one of them.
        """
        if step % REFRESH == 0 or not self._data:
            self._refresh()
        data, count = self._data[step % len(self._data)]
        places = torch.arange(len(data["ends"]))
        ends = data["ends"][torch.randint(len(places), ())]
        if alike:
            places = (data["ends"] == ends).all(1).nonzero()[:, 0]
        picked = places[torch.randint(len(places), (count,))]
        latents, condition, image, mask = (
            data[name][picked].to(self._device).float() for name in ("latents", "condition", "image", "mask")
        )
        ids = data["ids"][picked].long()
        dropped = torch.rand(count) < NO_PROMPT
        ids[dropped] = self._no_prompts[torch.randint(len(self._no_prompts), (count,))][dropped]
        row = None
        if alike and not ends.all():
            row = 0 if ends[0] else image.shape[1] // 2
            image = image[:, row : row + image.shape[1] // 2]
        mask = mask[..., None, None].expand(*mask.shape, *latents.shape[-2:])
        return Batch(
            latents=latents,
            condition=torch.cat((mask, condition), dim=1),
            text=encode(self._text_encoder, ids.to(self._device)),
            image=image,
            bare=data["bare"][picked].to(self._device),
            image_row=row,
        )

    def _refresh(self) -> None:
        counted = sum(len(shards.made()) for shards in self._shards)
        if counted != self._counted:
            self._counted = counted
            pairs = zip(self._shards, self._sizes, strict=True)
            self._data = [(shards.load(), count) for shards, count in pairs if shards.made()]
        if not self._data:
            raise SystemExit("there are no clips of this VAE yet; name data in --only too")


def encode(text_encoder: nn.Module, ids: Tensor) -> Tensor:
    """Token ids ``[B, S]`` to embeddings ``[B, S, text_dim]``, zero behind the prompt, as the pipeline gives them."""
    mask = (ids != 0).long()
    return text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
