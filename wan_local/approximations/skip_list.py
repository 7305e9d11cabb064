"""Steps to skip that are known beforehand: every second one of those that may be, or more in a row."""

from __future__ import annotations

from collections.abc import Sequence

from .window import Window


def skip_list(window: Window, models: Sequence[object], in_a_row: int) -> frozenset[int]:
    """The steps to skip.

    Args:
        window: for each step whether it may be.
        models: as for :func:`~.window.after_starts`; with each the pattern begins anew.
        in_a_row: so many are skipped after each that is not.
    """
    skipped: set[int] = set()
    since, before = in_a_row, None
    for step, (may, model) in enumerate(zip(window, models, strict=True)):
        if model != before:
            since = in_a_row
        if may and since < in_a_row:
            skipped.add(step)
            since += 1
        elif may:
            since = 0
        before = model
    return frozenset(skipped)
