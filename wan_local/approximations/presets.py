"""Approximations by name: what a person takes who does not want to know each of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from .options import EXACT, LIST, Approximations

NOTHING = "exact"
OF_SKIPPING = ("skip_in_a_row", "skip_threshold")  # a preset's say nothing of another way of skipping
PRESETS: Mapping[str, Approximations] = MappingProxyType(
    {
        NOTHING: EXACT,
        "balanced": Approximations(skip=LIST),
        "fast": Approximations(skip=LIST, skip_in_a_row=2),
    }
)


def approximations_of(preset: str = NOTHING, **own: Any) -> Approximations:
    """A preset, with some options chosen by hand.

    Args:
        preset: one of :data:`PRESETS`.
        own: fields of :class:`Approximations`; None leaves the preset's.

    Raises:
        InputError: a name that is not known, values that can't be used or can't go together.
    """
    if preset not in PRESETS:
        raise InputError(f"preset={preset!r} is not known; use {', '.join(PRESETS)}")
    own = {name: value for name, value in own.items() if value is not None}
    another = "skip" in own and own["skip"] != PRESETS[preset].skip
    for name, value in PRESETS[preset].chosen().items():
        if not (another and name in OF_SKIPPING):
            own.setdefault(name, value)
    return Approximations(**own)


def named(options: Approximations) -> str:
    """What was chosen, for a person: "exact", "balanced (skip list)", "skip easycache, guidance_reuse 2"."""
    told = ", ".join(f"{name} {_value(value)}" for name, value in options.chosen().items())
    preset = next((name for name, each in PRESETS.items() if each == options), None)
    return told if preset is None else f"{preset} ({told})" if told else preset


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "on" if value is True else str(value)
