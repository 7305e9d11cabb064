"""What may be chosen, what may not, and what a choice is called."""

from __future__ import annotations

from typing import Any

import pytest

from wan_local.approximations import EXACT, PRESETS, Approximations, approximations_of, named
from wan_local.errors import InputError
from wan_local.settings import Settings


def test_nothing_is_approximated_unless_asked_for() -> None:
    assert EXACT.exact
    assert Settings().approximations == Approximations() == approximations_of() == EXACT
    assert PRESETS["exact"] == EXACT
    assert not any(each.exact for name, each in PRESETS.items() if name != "exact")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"skip": "often"}, "skip='often' is not known; use off, list, easycache, magcache"),
        ({"skip_in_a_row": 9}, "from 0 to 4"),
        ({"skip_in_a_row": 2}, "skip_in_a_row=2 is for list and magcache and skip is 'off'"),
        ({"skip": "list", "skip_threshold": 0.1}, "skip_threshold=0.1 is for easycache and magcache"),
        ({"skip": "magcache", "skip_threshold": 1.5}, "from 0 to 1"),
        ({"skip": "magcache", "skip_threshold": float("nan")}, "skip_threshold=nan"),
        ({"skip": "list", "guidance_reuse": 2}, "skip='list' and guidance_reuse=2 can't go together"),
        ({"guidance_reuse": 0}, "from 1 to 8"),
        ({"guidance_reuse": True}, "guidance_reuse=True"),
        ({"guidance_lowest": 0.5, "guidance_highest": 0.5}, "no step would have guidance"),
        ({"guidance_highest": -0.1}, "from 0 to 1"),
        ({"cfg_zero": 1}, "cfg_zero=1"),
        ({"nag": 0.5}, "nag=0.5 would do nothing"),
        ({"nag": float("inf")}, "nag=inf"),
        ({"sparse": -1.0}, "sparse=-1.0"),
    ],
)
def test_what_can_not_be_is_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace("'", ".")):
        Approximations(**own)


def test_a_preset_may_be_changed_in_single_points() -> None:
    fast = PRESETS["fast"]
    assert approximations_of("fast") == approximations_of("fast", skip=None) == fast
    assert approximations_of("fast", nag=11.0).nag == 11.0
    assert approximations_of("fast", nag=11.0).skip == fast.skip
    other = approximations_of("fast", skip="easycache")
    assert (other.skip, other.skip_in_a_row) == ("easycache", 0)
    with pytest.raises(InputError, match="preset='slow' is not known; use exact, balanced, fast"):
        approximations_of("slow")


def test_a_choice_says_what_it_is() -> None:
    assert named(EXACT) == "exact"
    assert named(PRESETS["balanced"]).startswith("balanced (skip ")
    own = Approximations(skip="easycache", skip_threshold=0.05, cfg_zero=True)
    assert named(own) == "skip easycache, skip_threshold 0.05, cfg_zero on"
