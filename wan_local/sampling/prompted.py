"""The transformer under one prompt and one pair of pictures: what guidance and samplers call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .guidance import Velocity


def prompted_velocity(
    transformer: Callable[..., Tensor], condition: Tensor, text: Tensor, image: Tensor | None
) -> Velocity:
    """Bind everything of the transformer's inputs that stays the same over a run.

    Args:
        transformer: :class:`wan_local.model.WanTransformer`, or whatever takes the same inputs.
        condition: ``[1, 4 + z_dim, T, h, w]`` mask and image latents, see :func:`wan_local.conditioning.first_last`.
        text: ``[1, S, text_dim]``.
        image: ``[1, rows, image_dim]``; None for a model without image branch.

    Returns:
        velocity of latents ``[B, C, T, h, w]``; the B clips share all of the above.
    """

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        batch = latents.shape[0]
        joined = torch.cat([latents, condition.expand(batch, -1, -1, -1, -1)], dim=1)  # noise, mask, image latents
        rows = None if image is None else image.expand(batch, -1, -1)
        times = torch.full((batch,), timestep, device=latents.device)
        return transformer(joined, times, text.expand(batch, -1, -1), rows)

    return velocity
