"""Is what came in something this transformer can take? Plain checks, before anything long runs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TransformerConfig
from ..errors import InputError


def check_latents(latents: Tensor, config: TransformerConfig) -> None:
    """Raise :class:`InputError` unless latents are ``[B, in_dim, T, h, w]`` and cut into whole patches."""
    shape = tuple(latents.shape)
    if len(shape) != 5 or shape[1] != config.in_dim:
        raise InputError(
            f"latents of shape {shape} do not fit; this model takes [B, {config.in_dim}, T, h, w] "
            f"(noisy latents and image condition joined along channels)"
        )
    if not latents.is_floating_point():
        raise InputError(f"latents are {latents.dtype}; give floating point latents")
    if 0 in shape:
        raise InputError(f"latents of shape {shape} are empty; give at least one sample, frame and patch")
    for name, size, patch in zip(("T", "h", "w"), shape[2:], config.patch_size, strict=True):
        if size % patch:
            raise InputError(f"latents have {name}={size}, not a multiple of the patch size {patch}; crop or pad")


def check_timestep(timestep: Tensor, batch: int) -> None:
    """Raise :class:`InputError` unless there is one timestep a sample, in a dtype that keeps its digits."""
    if tuple(timestep.shape) != (batch,):
        raise InputError(f"timestep has shape {tuple(timestep.shape)}; give one value a sample, ({batch},)")
    if timestep.dtype in (torch.bfloat16, torch.float16):  # bfloat16 turns 999 into 1000
        raise InputError(f"timestep is {timestep.dtype}, which rounds it; give float32 or an integer dtype")


def check_text(text: Tensor, batch: int, config: TransformerConfig) -> None:
    """Raise :class:`InputError` unless text is ``[B, S, text_dim]`` with S >= 1; S is the caller's choice."""
    shape = tuple(text.shape)
    if len(shape) != 3 or shape[0] != batch or shape[1] < 1 or shape[2] != config.text_dim:
        wanted = f"[{batch}, S, {config.text_dim}] with S >= 1"
        raise InputError(f"text of shape {shape} does not fit; give {wanted} from the text encoder")


def paired_image(
    image: Tensor | None, batch: int, config: TransformerConfig, first_row: int | None = None
) -> Tensor | None:
    """The image embeddings as ``[B, rows, image_dim]``, or None for a model without image branch and for no rows.

    Where the model has learned positions for two images, they may also come as
    ``[2 B, rows / 2, image_dim]``: first and last of the first sample, then of the second, and so on. Or they are those
    of one of the two, and ``first_row`` says which.

    Raises:
        InputError: embeddings missing (text never stands in for them), not wanted, or not both images.
    """
    if not config.has_image_branch:
        if image is not None:
            raise InputError(f"image of shape {tuple(image.shape)} for a model without image branch; pass None")
        return None
    rows = config.image_tokens
    wanted = f"[{batch}, {rows or 'rows'}, {config.image_dim}]"
    if image is None:
        raise InputError(f"image=None, but this model needs image embeddings; give {wanted} from the image encoder")
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[2] != config.image_dim:
        raise InputError(f"image of shape {shape} does not fit; give {wanted} from the image encoder")
    if shape[:2] == (batch, 0):
        return None
    if first_row is not None and rows:
        if shape[:2] != (batch, rows // 2) or first_row not in (0, rows // 2):
            one = f"[{batch}, {rows // 2}, {config.image_dim}] for row 0 (the first image) or {rows // 2} (the last)"
            raise InputError(f"image of shape {shape} from row {first_row} on does not fit; give {one}")
        return image
    if rows and shape == (2 * batch, rows // 2, config.image_dim) and rows % 2 == 0:
        return image.reshape(batch, rows, config.image_dim)
    if shape[0] != batch or (rows and shape[1] != rows):
        both = " (the embeddings of both images, first then last)" if rows else ""
        raise InputError(f"image of shape {shape} does not fit; give {wanted}{both}")
    return image
