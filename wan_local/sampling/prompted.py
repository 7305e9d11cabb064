"""The transformer under one prompt and one pair of pictures: what guidance and samplers call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..notices import tell
from .guidance import Velocity, guided_velocity

ALONE = (
    "the model is one of Wan2.2's two experts and does every step alone: it was trained for high noise or for low "
    "noise only, so expect a poor clip; Wan2.1 FLF2V does all steps with one model"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side of guidance: everything of the transformer's inputs that stays the same over a run.

    Attributes:
        condition: ``[1, 4 + z_dim, T, h, w]`` mask and image latents, see :func:`wan_local.conditioning.first_last`.
        text: ``[1, S, text_dim]``.
        image: ``[1, rows, image_dim]``; None for a model without image branch.
    """

    condition: Tensor
    text: Tensor
    image: Tensor | None = None


def prompted_velocity(transformer: Any, side: Side) -> Velocity:
    """Bind one side to the transformer.

    Args:
        transformer: :class:`wan_local.model.WanTransformer`, or whatever takes the same inputs.
        side: of guidance, on the transformer's device.

    Returns:
        velocity of latents ``[B, C, T, h, w]``; the B clips share the side.
    """

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        batch = latents.shape[0]
        joined = torch.cat([latents, side.condition.expand(batch, -1, -1, -1, -1)], dim=1)  # noise, mask, image
        rows = None if side.image is None else side.image.expand(batch, -1, -1)
        times = torch.full((batch,), timestep, device=latents.device)
        return transformer(joined, times, side.text.expand(batch, -1, -1), rows)

    return velocity


def model_velocity(transformer: Any, sides: Sequence[Side], guidance: float) -> Velocity:
    """The guided velocity of a model, wherever its weights are.

    Args:
        transformer: as above; one that is on several cards does the guidance itself (``guided_velocity``).
        sides: under the prompt, then under the negative prompt; the second is not used at guidance 1.
        guidance: guidance scale.

    Raises:
        InputError: ``guidance`` is not a finite number.
    """
    if transformer.config.is_expert:
        tell(ALONE)
    elsewhere = getattr(transformer, "guided_velocity", None)
    if elsewhere is not None:
        return elsewhere(sides, guidance)
    views = [prompted_velocity(transformer, side) for side in sides]
    return guided_velocity(views[0], views[-1], guidance)
