"""What weights are behind a socket of the host's: named by some of their values, since no socket says its file."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

PLACES = ("first_stage_model", "cond_stage_model", "model")  # where VAE, CLIP and CLIP_VISION have their module
VALUES = 16  # of a vector that are looked at


def name_of_weights(value: Any) -> str | None:
    """A name that changes with the weights; None for what has no module where the host looks for one.

    Vectors are looked at, the norms and biases: they are small, the same in every packing, and no two trained models
    have the same.
    """
    if value is None:
        return ""
    module = next((each for name in PLACES if isinstance(each := getattr(value, name, None), nn.Module)), None)
    if module is None:
        return None
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        if parameter.ndim == 1:
            digest.update(parameter.detach()[:VALUES].float().cpu().numpy().tobytes())
    return digest.hexdigest()
