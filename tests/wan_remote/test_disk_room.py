"""A disk that is nearly full: found out before a clip is paid for that could not be kept."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_too_little_room_stops_everything_before_the_submission(world, monkeypatch, provider):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=255 * 2**20))
    outcome = world.run(world.request(provider))
    name = f"{provider}: the disk is nearly full"
    says = ("has 255 MiB left and a clip may need 256", "nothing was sent")
    world.check("before", name, outcome, end="StorageError", posts=0, accepted=0, says=says)
    assert world.cloud.records() == []
