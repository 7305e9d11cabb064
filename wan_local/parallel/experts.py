"""Two experts on the GPUs of a group: both stay on each, or they take turns where that is too much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..config import TransformerConfig
from ..free_memory import check_host_room
from ..memory import stored
from ..memory.plan import Weights
from ..weights.experts import Pair
from ..words import counted
from .plan import experts_take_turns

if TYPE_CHECKING:
    from .setup import Setup


def take_turns(high: str, low: str, dtype: torch.dtype, unpack: bool, device: torch.device) -> bool:
    """Whether two experts, loaded so, are too large for a GPU; never on a CPU, where nothing moves."""
    found = _read(high, low, dtype, unpack) if device.type == "cuda" else None
    return found is not None and experts_take_turns(*found, _memory(device))


def check_room(setup: Setup, dtype: torch.dtype, devices: tuple[str, ...]) -> None:
    """Raise :class:`OutOfMemory` where ranks of this machine, each for itself, would convert more weights than the host
    has room for. Those wait there where experts take turns; of a cluster, only its machines know."""
    if setup.fsdp or setup.ray_address:
        return
    size = sum(stored.converted(path, dtype, unpack=setup.unpack) for path, _ in setup.models)
    ranks = sum(_rest_in_the_host(setup, dtype, torch.device(name)) for name in devices) if size else 0
    what = "the two experts" if setup.low else "the model"
    check_host_room(ranks * size, f"{what}, converted by each of {counted(ranks, 'rank')},", dtype)


def _rest_in_the_host(setup: Setup, dtype: torch.dtype, device: torch.device) -> bool:
    if device.type == "cpu" or not setup.low:
        return device.type == "cpu"
    return take_turns(setup.path, setup.low, dtype, setup.unpack, device) if setup.turns is None else setup.turns


def told(setup: Setup, dtype: torch.dtype, devices: tuple[str, ...]) -> str:
    """Where the two experts of a setup will be, in words."""
    found = _read(setup.path, setup.low, dtype, setup.unpack)
    if found is None:
        return "two experts"
    config, weights = found
    one = max(each.transformer for each in weights.models) / 1e9
    both = weights.transformers / 1e9
    if setup.fsdp:
        return f"both experts are sharded over the GPUs ({both:.1f} GB of weights in all)"
    turns = f"the two experts take turns on each GPU ({one:.1f} GB of weights at a time)"
    stay = f"both experts stay on each GPU ({both:.1f} GB of weights)"
    if setup.turns is not None:
        return turns if setup.turns else stay
    if setup.device == "cpu":
        return stay
    if setup.ray_address:  # only its machines know
        return f"{stay} with room for them, and take turns on others"
    small = [name for name in devices if experts_take_turns(config, weights, _memory(torch.device(name)))]
    return turns if len(small) == len(devices) else stay if not small else f"{stay}; on {', '.join(small)} in turn"


def _read(high: str, low: str, dtype: torch.dtype, unpack: bool) -> tuple[TransformerConfig, Weights] | None:
    found = stored.read(Pair(high=Path(high), low=Path(low)), dtype, unpack=unpack)
    return None if found is None else found[:2]


def _memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory
