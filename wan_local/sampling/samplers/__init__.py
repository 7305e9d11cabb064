"""The samplers by name: the table of contents of this folder. A new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ...errors import InputError
from ..schedule import TRAIN_TIMESTEPS, Schedule
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


def sampler_on(name: str, sigmas: Sequence[float]) -> Sampler:
    """A sampler for one run on given noise levels, such as a part of a schedule; the timesteps are not whole numbers.

    Args:
        name: as for :func:`make_sampler`.
        sigmas: at least 2, falling, of 0..1.

    Raises:
        InputError: an unknown name, or levels that are no schedule of a flow-matching model.
    """
    falling = all(high > low for high, low in zip(sigmas, sigmas[1:], strict=False))
    if len(sigmas) < 2 or not falling or not 0 <= sigmas[-1] < sigmas[0] <= 1:
        shown = ", ".join(f"{sigma:g}" for sigma in sigmas[:4])
        raise InputError(f"sigmas are {shown} ...; this sampler takes noise levels that fall from at most 1 towards 0")
    sampler = make_sampler(name, len(sigmas) - 1, 1.0)
    timesteps = tuple(TRAIN_TIMESTEPS * sigma for sigma in sigmas[:-1])
    sampler.schedule = Schedule(sigmas=tuple(sigmas), timesteps=timesteps)
    return sampler
