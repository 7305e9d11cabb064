"""Numbers and what they count, as a person reads them."""

from __future__ import annotations

import pytest

from wan_local.words import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 clips"), (1, "1 clip"), (2, "2 clips"), (1560, "1,560 clips"), (-1, "-1 clips")]
)
def test_one_is_no_plural(number: int, text: str) -> None:
    assert counted(number, "clip") == text
