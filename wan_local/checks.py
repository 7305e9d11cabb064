"""Is a number that a person chose within what can be used?"""

from __future__ import annotations

from .errors import InputError


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise :class:`InputError` unless ``value`` is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}={value!r} can't be used; give a whole number from {low} to {high}")


def check_number(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    """Raise :class:`InputError` unless ``value`` is a number from ``low``, or above it, to ``high``."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not good or (above and value == low):
        lowest = "above" if above else "from"
        raise InputError(f"{name}={value!r} can't be used; give a number {lowest} {low:g} to {high:g}")
