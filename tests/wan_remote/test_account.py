"""What an account is asked for without paying: requests, their status, and what they cost."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.wan_remote.fault_case import GMI, POLL, WAVESPEED, answer
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


LABEL = {GMI: "GMI Cloud", WAVESPEED: "WaveSpeedAI"}

OTHER = {GMI: WAVESPEED, WAVESPEED: GMI}


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_the_status_of_an_id_that_does_not_exist(world, provider):
    done = world.cli(provider, "status", "does-not-exist")
    assert done.returncode == 1
    assert done.stderr == (
        f"{LABEL[provider]} does not know the request does-not-exist with this key; `python -m wan_remote {provider} "
        "list` shows those it knows\n"
    )


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_the_status_of_a_job_of_the_other_cloud_is_refused_unasked(world, provider):
    assert world.run(world.request(provider)).end == "result"
    [job] = world.cloud.jobs()
    asked = len(world.cloud.records())
    done = world.cli(OTHER[provider], "status", job["id"])
    assert done.returncode == 1
    assert done.stderr == f"request_id={job['id']} belongs to {provider}; choose that provider\n"
    assert len(world.cloud.records()) == asked
    assert world.cli(provider, "status", job["id"]).returncode == 0


def test_a_refusal_for_another_reason_keeps_its_own(world):
    world.cloud.faults(POLL[GMI], answer(GMI, 403, "not your organisation", times=0))
    done = world.cli(GMI, "status", "somebody-elses")
    assert (done.returncode, "not your organisation" in done.stderr) == (1, True)
