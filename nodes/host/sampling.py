"""Samplers in the host's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch


def sampler(function: Callable[..., torch.Tensor]) -> Any:
    """``SAMPLER`` of a function ``(model, x, sigmas, extra_args, callback, disable) -> x``."""
    return comfy.samplers.KSAMPLER(function)
