"""Settings: the size of the clip, given or from the first image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wan_local.settings import MAX_AREA, Settings
from wan_local.shapes import PIXEL_MULTIPLE

SIZES = {  # first image -> clip
    (1280, 720): (1280, 720),
    (832, 480): (832, 480),  # the official code makes 464 of it
    (1024, 1024): (960, 960),  # at most the area of 1280 x 720
    (3840, 2160): (1280, 720),
    (2160, 3840): (720, 1280),
    (64, 64): (64, 64),
    (100, 50): (96, 48),
    (1, 1): (16, 16),
}


@pytest.mark.parametrize(("image", "clip"), SIZES.items())
def test_size_follows_the_first_image(image: tuple[int, int], clip: tuple[int, int]) -> None:
    grid = Settings().grid(*image)
    assert (grid.width, grid.height) == clip


def test_given_sizes_are_kept_and_the_missing_side_follows() -> None:
    both = Settings(width=832, height=464).grid(64, 64)
    assert (both.width, both.height) == (832, 464)
    assert Settings(width=640).grid(1280, 720).height == 352
    assert Settings(height=352).grid(1280, 720).width == 624


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.integers(1, 20000), st.integers(1, 20000))
def test_any_image_gives_a_legal_size_within_the_area(width: int, height: int) -> None:
    grid = Settings().grid(width, height)
    assert grid.width % 16 == 0
    assert grid.height % 16 == 0
    # Each side was rounded to a whole pixel before it was floored: at most half a pixel above the exact one.
    assert (grid.width - 0.5) * (grid.height - 0.5) <= 1280 * 720 or 16 in (grid.width, grid.height)


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
