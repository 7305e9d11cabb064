"""The samplers by name: the table of contents of this folder. A new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ...errors import InputError
from . import dpmpp_2m, euler, unipc
from .base import Sampler

SAMPLERS: Mapping[str, Callable[[int, float], Sampler]] = MappingProxyType(
    {
        unipc.NAME: unipc.UniPC,  # the default: what the model was published with
        dpmpp_2m.NAME: dpmpp_2m.DPMpp2M,
        euler.NAME: euler.Euler,
    }
)


def make_sampler(name: str, num_steps: int, shift: float) -> Sampler:
    """A sampler for one run.

    Args:
        name: "unipc", "dpm++" or "euler".
        num_steps: at least 1.
        shift: above 0.

    Raises:
        InputError: an unknown name or a value out of range.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler={name!r} is not known; use {', '.join(SAMPLERS)}")
    return SAMPLERS[name](num_steps, shift)
