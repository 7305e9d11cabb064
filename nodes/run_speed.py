"""Whether a speed is normal: seconds a step, operations a second, and their share of what this GPU does at best."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ..wan_local import speed
from ..wan_local.approximations import NOTHING
from ..wan_local.errors import InputError
from ..wan_local.flops import transformer_forward
from ..wan_local.parallel.setup import Setup
from ..wan_local.sampling import forwards_of
from ..wan_local.shapes import Grid
from . import host, pace

TERA, GIGA = 1e12, 1e9


def told(model: Any, grid: Grid, guidance: float, step_seconds: float | None, approximated: str, batch: int = 1) -> str:
    """A line on a finished run, whose pace is kept for the next estimate; nothing of a run without a step.

    Args:
        model: as connected, of one transformer or of two experts.
        grid: of each clip, and what one forward saw of it.
        guidance: that was asked for.
        step_seconds: what a step took.
        approximated: what was not calculated in full. The median of unlike steps says nothing, nor does one of windows.
        batch: clips sampled at once.
    """
    if not step_seconds or approximated != NOTHING or grid.in_a_forward.frames < grid.frames:
        return ""
    counts = {forwards_of(each.scale(guidance)) for each in model.denoisers(grid)}
    if len(counts) > 1:  # of two experts, one guided, either's step may be the median
        return ""
    count, config = counts.pop(), model.transformer.config
    forwards = batch * count
    setup, device = _setup(model), model.device
    if setup is not None:
        kind = pace.kind(setup, config, guided=count == 2)
        pace.remember(host.device_name(device), kind, grid, step_seconds / forwards)
    rate = forwards * transformer_forward(config, grid) / step_seconds
    shown = f"{rate / TERA:.1f} TFLOP/s" if rate >= TERA else f"{rate / GIGA:.1f} GFLOP/s"
    line = f"{step_seconds:.2f} s/step, {shown}"
    best = None if setup is None or device.type != "cuda" else _best(getattr(torch, setup.dtype), device)
    if setup is None or best is None:
        return line
    return f"{line}, {rate / best / setup.gpus:.0%} of this GPU's {best / TERA:.0f} at best in {setup.dtype}"


def _setup(model: Any) -> Setup | None:
    """What it was made from; None for two experts that were loaded with unlike choices."""
    try:
        found: Setup | None = model.setup
    except InputError:
        return None
    return found


@cache
def _best(dtype: torch.dtype, device: torch.device) -> float | None:
    """Measured once, in milliseconds; None where there is no room for it or no such product."""
    try:
        with torch.inference_mode():
            return speed.best_rate(dtype, device)
    except (torch.OutOfMemoryError, RuntimeError):
        return None
