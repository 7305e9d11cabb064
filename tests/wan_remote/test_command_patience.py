"""``--wait``: a value that makes no sense is found out before anything is paid."""

from __future__ import annotations

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED


@pytest.mark.parametrize("minutes", ["-5", "0", "nan", "-inf", "soon", ""])
def test_no_patience_is_refused_before_paying(world, minutes):
    done = world.command(GMI, f"--wait={minutes}")
    assert done.returncode == 2
    assert f"--wait: {minutes!r} is no time to wait; give minutes, more than 0" in done.stderr
    assert world.cloud.records() == []


@pytest.mark.parametrize("minutes", ["0.5", "90", "inf"])
def test_some_patience_is_taken(world, minutes):
    world.cloud.plan(WAVESPEED, {"status": "completed", "at_submit": True})
    assert world.command(WAVESPEED, "--wait", minutes).returncode == 0
