"""Sizes: which legal one is nearest; which is taken where none is given is in test_settings.py."""

from __future__ import annotations

import pytest

from wan_local.shapes import nearest_size


@pytest.mark.parametrize(("width", "height"), [(479.99999999999994, 832.0000000000001), (480.4, 832.4)])
def test_a_size_is_rounded_to_pixels_before_it_is_floored(width: float, height: float) -> None:
    assert nearest_size(width, height) == (480, 832)


def test_a_size_is_floored_to_the_multiple_not_rounded() -> None:
    assert nearest_size(495.4, 847.4) == (480, 832)
    assert nearest_size(1.0, 3.0) == (16, 16)
