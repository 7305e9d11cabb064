"""CONDITIONING: prompts and images in the very keys that core's own nodes write and read.

So our conditioning drives core's sampler and core's WanFirstLastFrameToVideo drives ours:

- ``concat_latent_image`` ``[1, z, T, h, w]``: raw latents of the clip of both images with grey between;
- ``concat_mask`` ``[1, 4, T, h, w]``: 1 where the model must invent. The transformer wants the opposite;
- ``clip_vision_output``: embeddings of the first image, then of the last; a model that was trained with the first alone
  gets those.

A key of our own, which core does not read: ``wan_flf2v_low_noise`` has the first two again, where an image has another
strength for Wan2.2's low-noise expert.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...wan_local.conditioning import Conditions
from ...wan_local.config import LatentRGB, TransformerConfig
from ...wan_local.errors import InputError
from ...wan_local.sampling import Cond
from ...wan_local.shapes import TEMPORAL_STRIDE
from ...wan_local.words import counted
from .. import host

LATENT_RGB = "wan_flf2v_latent_rgb"  # keys of ours, which core carries along
LOW_NOISE = "wan_flf2v_low_noise"
# What core can put on an entry and this sampler has no use for: better said than silently left out.
NOT_TAKEN = ("area", "mask", "control", "gligen", "hooks", "reference_latents", "time_dim_concat")


def attach(
    conditioning: Any,
    condition: Conditions,
    image_embeddings: Tensor | None,
    latent_rgb: LatentRGB = (),
) -> Any:
    """A copy of ``CONDITIONING`` that also holds images.

    Args:
        conditioning: from a text encoder node.
        condition: from :func:`wan_local.conditioning.conditions`.
        image_embeddings: ``[1, tokens, image_dim]`` of the first and the last image or one of them, or None.
        latent_rgb: of the VAE, for previews.
    """
    values = _values(condition.each)
    if condition.low is not None:
        values[LOW_NOISE] = _values(condition.low)
    if image_embeddings is not None:
        values["clip_vision_output"] = host.clip_vision_output(penultimate_hidden_states=image_embeddings)
    if latent_rgb:
        values[LATENT_RGB] = latent_rgb
    return host.with_values(conditioning, values)


def _values(condition: Tensor) -> dict[str, Any]:
    """``[1, 4 + z, T, h, w]`` as core has it."""
    mask, latents = condition[:, :TEMPORAL_STRIDE], condition[:, TEMPORAL_STRIDE:]
    return {
        "concat_latent_image": host.denormalise_latents(latents).to(host.result_device()),
        "concat_mask": (1.0 - mask).to(host.result_device()),
    }


def latent_rgb(conditioning: Any) -> LatentRGB:
    """How latents of the VAE that made the images' ones are previewed; empty is the host's own way."""
    return next((values[LATENT_RGB] for _, values in conditioning if LATENT_RGB in values), ())


def read(conditioning: Any, name: str, config: TransformerConfig, latent_shape: tuple[int, int, int]) -> Cond:
    """What a ``CONDITIONING`` says to the transformer.

    Args:
        conditioning: from our conditioning node or core's ``WanFirstLastFrameToVideo``.
        name: of the input, for messages.
        config: of the transformer.
        latent_shape: ``(T, h, w)`` of the latent that is to be sampled.

    Raises:
        InputError: no images in it, images of another size, no image embeddings for a model that looks at them, or
            something this sampler can't do.
    """
    text, values = _only_entry(conditioning, name)
    condition, low = _condition(values, name, latent_shape), values.get(LOW_NOISE)
    image, row = _image(values, name, config, condition) if config.has_image_branch else (None, None)
    return Cond(
        text=_text(text, name, config),
        condition=condition,
        image=image,
        image_row=row,
        low_condition=None if low is None else _condition(low, name, latent_shape),
    )


def _only_entry(conditioning: Any, name: str) -> tuple[Tensor, dict[str, Any]]:
    if len(conditioning) != 1:
        raise InputError(
            f"{name} holds {counted(len(conditioning), 'prompt')}; this sampler takes one: connect a single "
            "text encode node"
        )
    text, values = conditioning[0]
    scheduled = values.get("start_percent", 0.0) > 0.0 or values.get("end_percent", 1.0) < 1.0
    extras = [key for key in NOT_TAKEN if values.get(key) is not None]
    if scheduled:
        extras.append("start_percent/end_percent")
    if extras:
        raise InputError(f"{name} carries {', '.join(extras)}, which this sampler can't do; connect it without")
    return text, values


def _text(embeddings: Tensor, name: str, config: TransformerConfig) -> Tensor:
    """As they come: how many tokens a prompt is padded to is the text encoder's own affair."""
    if embeddings.ndim != 3 or embeddings.shape[-1] != config.text_dim:
        raise InputError(
            f"{name} has prompt embeddings of shape {list(embeddings.shape)} and the model takes {config.text_dim} "
            "values a token; use the umT5 text encoder that belongs to it (CLIP type wan)"
        )
    return embeddings[:1].float()


def _condition(values: dict[str, Any], name: str, latent_shape: tuple[int, int, int]) -> Tensor:
    latents, mask = values.get("concat_latent_image"), values.get("concat_mask")
    if latents is None or mask is None:
        raise InputError(
            f"{name} holds no first and last frame; send it through Wan FLF2V Conditioning or core's "
            "WanFirstLastFrameToVideo"
        )
    for what, tensor in (("images", latents), ("mask", mask)):
        if tuple(tensor.shape[2:]) != latent_shape:
            raise InputError(
                f"latent is {_size(latent_shape)} and the {what} in {name} are {_size(tensor.shape[2:])} "
                "(frames x height x width, in latent cells); take both from the same conditioning node"
            )
    known = (1.0 - mask[:1].float()).expand(-1, TEMPORAL_STRIDE, -1, -1, -1)
    return torch.cat([known, host.normalise_latents(latents[:1].float()).to(known.device)], dim=1)


def _image(
    values: dict[str, Any], name: str, config: TransformerConfig, condition: Tensor
) -> tuple[Tensor, int | None]:
    """Image embeddings ``[1, N, image_dim]``, and the learned position they begin with if they are one image's of two:
    whose they are is what the mask says."""
    first, last = (bool(mask.any()) for mask in (condition[:, 0, 0], condition[:, TEMPORAL_STRIDE - 1, -1]))
    output = values.get("clip_vision_output")
    embeddings = None if output is None else output["penultimate_hidden_states"]
    if embeddings is None and not (first or last):
        return condition.new_zeros(1, 0, config.image_dim), None
    if embeddings is None:
        raise InputError(
            f"{name} holds no image encoder output and this model looks at the images through one; connect "
            "clip_vision in the conditioning node"
        )
    embeddings = embeddings[:1].float()
    if embeddings.shape[1] == config.image_tokens:
        return embeddings, None
    images = embeddings.unflatten(1, (-1, tokens_of_one(embeddings.shape[1])))  # [1, images, tokens of one, image_dim]
    if images.shape[1] < config.images_seen and not (first and last):
        return images.flatten(1, 2), config.row_of(1 if last else 0)
    if images.shape[1] < config.images_seen:
        raise InputError(
            f"{name} holds the image encoder's output of one image and this model takes that of both; use Wan FLF2V "
            "Conditioning, or connect clip_vision_start_image and clip_vision_end_image"
        )
    return images[:, [0, -1][: config.images_seen]].flatten(1, 2), None


def tokens_of_one(tokens: int) -> int:
    """How many of the image encoder's tokens, of some images one behind the other, are one image's.

    An image is a class token and a square of patches: 257 is one, 514 are two.
    """
    sizes = (tokens // count for count in range(1, tokens // 2 + 1) if tokens % count == 0)
    return next((size for size in sizes if math.isqrt(size - 1) ** 2 == size - 1), tokens)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
