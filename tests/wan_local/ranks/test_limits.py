"""How long a call may take: what the caller says, and more where the machine is seen to be slow."""

from __future__ import annotations

import pytest

from tests.wan_local.ranks.groups import group
from wan_local.errors import InputError
from wan_local.ranks import Limits, RankError, step_limit


def test_what_a_person_says_about_a_step():
    assert step_limit("") == Limits()
    assert step_limit(None) == Limits()
    for given in ("7200", " 7200.0 ", 7200):
        limits = step_limit(given)
        assert (limits.call, limits.first, limits.slack) == (7200.0, 7200.0, 1.0)
        assert limits.load == Limits().load
    for wrong in ("soon", "0", "-5", "inf", "nan", "1h"):
        with pytest.raises(InputError, match=r"WAN_FLF2V_STEP_LIMIT='.*' can't be used; give seconds above 0"):
            step_limit(wrong)


def test_a_slow_machine_gets_more_time_than_the_default():
    """Two calls of 1.5 s under a limit of 1 s: the first has the time of a first one, the second that of the first."""
    with group("local", world=1, limits={"call": 1.0, "first": 60.0, "slack": 40.0}) as ranks:
        ranks.start()
        assert ranks.call("together", 1.5) == ["done"]
        assert ranks.call("together", 1.5) == ["done"]


def test_what_a_person_says_is_not_stretched():
    with group("local", world=1, limits={"call": 1.0, "first": 60.0, "slack": 1.0}) as ranks:
        ranks.start()
        assert ranks.call("together", 0.1) == ["done"]
        with pytest.raises(RankError, match="no answer within 1 s, .*; if that is too short .* WAN_FLF2V_STEP_LIMIT"):
            ranks.call("together", 600.0)


def test_a_method_has_the_time_of_a_first_call_once():
    with group("local", world=1, limits={"call": 1.0, "first": 1.5, "slack": 1.0}) as ranks:
        ranks.start()
        with pytest.raises(RankError, match=r"no answer within 1\.5 s"):
            ranks.call("together", 600.0)
