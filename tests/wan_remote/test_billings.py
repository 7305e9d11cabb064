"""What clips really cost, as WaveSpeedAI bills them."""

from __future__ import annotations

import asyncio
import json

from tests.wan_remote.fault_case import GMI, WAVESPEED
from wan_remote.account import account


def test_billings_name_request_and_price(world):
    assert world.run(world.wavespeed()).end == "result"
    [job] = world.cloud.jobs()
    done = world.cli(WAVESPEED, "billings")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert row.pop("created").startswith("20")
    assert row == {"request_id": job["id"], "model": "wavespeed-ai/wan-flf2v", "type": "deduct", "price": 0.3}
    [asked] = world.cloud.records("wavespeed.billings", full=True)
    assert asked["json"] == {"page": 1, "page_size": 100, "sort": "created_at DESC"}


def test_billings_of_other_shapes_are_read_as_far_as_they_go(world):
    rows = [None, {"price": "0.3", "prediction": None}, {"price": 0.04, "billing_type": "refund", "prediction": "x"}]
    world.cloud.faults("wavespeed.billings", {"kind": "edit", "put": {"data.items": rows}, "times": 0})
    found = asyncio.run(account(WAVESPEED, "billings", keys=world.keys))
    assert found == [{}, {}, {"type": "refund", "price": 0.04}]
    world.cloud.faults("wavespeed.billings", {"kind": "edit", "put": {"data": None}, "times": 0})
    assert asyncio.run(account(WAVESPEED, "billings", keys=world.keys)) == []


def test_gmi_has_none(world):
    done = world.cli(GMI, "billings")
    assert done.returncode == 1
    assert done.stderr == "GMI Cloud can't be asked for billings; use requests, models or model\n"
    assert world.cloud.records() == []
