"""Ids that a cloud does not know, or that are the other cloud's: told as such."""

from __future__ import annotations

import pytest

from tests.wan_remote.fault_case import GMI, POLL, WAVESPEED, answer

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
