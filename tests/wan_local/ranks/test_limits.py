"""How long a call may take: what the caller says, and more where the machine is seen to be slow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.wan_local.ranks.groups import group, spec
from wan_local.errors import InputError
from wan_local.ranks import Limits, RankError, RankGroup, step_limit
from wan_local.ranks.launch import StartedRank


def test_what_a_person_says_about_a_step():
    assert step_limit("") == Limits()
    assert step_limit(None) == Limits()
    for given in ("7200", " 7200.0 ", 7200):
        limits = step_limit(given)
        assert (limits.call, limits.first, limits.slack) == (7200.0, 7200.0, 1.0)
        assert {limits.start, limits.join, limits.load} == {7200.0}
    usual = Limits()
    less = step_limit(60)
    assert (less.start, less.join, less.load) == (usual.start, usual.join, usual.load)
    for wrong in ("soon", "0", "-5", "inf", "nan", "1h"):
        with pytest.raises(InputError, match=r"WAN_FLF2V_STEP_LIMIT='.*' can't be used; give seconds above 0"):
            step_limit(wrong)


def test_what_takes_too_long_before_the_first_step_names_the_same_number(monkeypatch):
    ranks, told = RankGroup(spec("local", world=1)), []

    def finish(stage, limit, answers, stop, advice=""):
        told.append((stage, advice))
        return [{"folder": ""}]

    rank = StartedRank(host="127.0.0.1", place="cpu", process=None)
    quiet = SimpleNamespace(start=lambda stop: [rank], send=lambda *_: None, send_one=lambda *_: None, end=list)
    monkeypatch.setattr(ranks, "_launcher", quiet)
    monkeypatch.setattr(ranks, "_finish", finish)
    monkeypatch.setattr(ranks, "_compare", lambda there: None)
    ranks.start()
    assert {stage for stage, _ in told} == {"starting", "joining", "loading"}
    assert all("set WAN_FLF2V_STEP_LIMIT (--step-limit on the command line)" in advice for _, advice in told)


def test_later_calls_may_take_some_times_what_the_longest_took():
    limits = Limits(call=10.0, first=60.0, slack=5.0)
    assert limits.for_call(None) == 60.0
    assert (limits.for_call(1.0), limits.for_call(4.0)) == (10.0, 20.0)
    assert step_limit(30).for_call(100.0) == 100.0, "what a person says is not stretched"
    assert Limits(call=10.0, first=1.0).for_call(None) == 10.0


def test_a_method_has_the_time_of_a_first_call_once():
    with group("local", world=1, limits={"call": 1.0, "first": 60.0, "slack": 1.0}) as ranks:
        ranks.start()
        assert ranks.call("together", 1.5) == ["done"]
        advice = r"no answer within 1\.\d+ s, .*; if that is too short .* WAN_FLF2V_STEP_LIMIT"
        with pytest.raises(RankError, match=advice):
            ranks.call("together", 600.0)
