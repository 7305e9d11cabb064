"""Sizes: which ones are legal, and which one is taken where none is given."""

from __future__ import annotations

import pytest

from wan_local.settings import MAX_AREA, Settings
from wan_local.shapes import PIXEL_MULTIPLE, nearest_size


@pytest.mark.parametrize("portrait", [False, True], ids=["landscape", "portrait"])
def test_a_legal_size_is_kept_whatever_its_aspect(portrait: bool) -> None:
    """A size computed from area and aspect misses by a rounding error; truncated, 480x832 would lose 16 pixels."""
    sides = range(PIXEL_MULTIPLE, 1281, PIXEL_MULTIPLE)
    sizes = [(long, short) for long in sides for short in sides if short <= long and long * short <= MAX_AREA]
    settings = Settings()
    for size in sizes:
        width, height = reversed(size) if portrait else size
        grid = settings.grid(width, height)
        assert (grid.width, grid.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(479.99999999999994, 832.0000000000001), (480.4, 832.4)])
def test_a_size_is_rounded_to_pixels_before_it_is_floored(width: float, height: float) -> None:
    assert nearest_size(width, height) == (480, 832)


def test_a_size_is_floored_to_the_multiple_not_rounded() -> None:
    assert nearest_size(495.4, 847.4) == (480, 832)
    assert nearest_size(1.0, 3.0) == (16, 16)
