"""Ids that may stand in a path."""

from __future__ import annotations

from wan_remote.job import safe_id


def test_ids_that_could_climb_are_none():
    assert safe_id("gm-0001.a:b_c") == "gm-0001.a:b_c"
    assert safe_id(12345) == "12345"
    for bad in ("", "..", "a/../b", "a/b", "a b", "-a", ".a", "a" * 201, None, True, 1.5, ["a"], "a\n"):
        assert safe_id(bad) is None, bad
