"""A cloud's list of requests: read page by page, and what it proves."""

from __future__ import annotations

import time

import pytest

import wan_remote
from tests.wan_remote.cloud_lists import gmi_rows, show
from tests.wan_remote.fault_case import GMI, WAVESPEED


@pytest.mark.parametrize("form", ["ISO", "milliseconds"])
def test_times_of_gmi_in_other_forms_are_read(world, form):
    world.lose(GMI)
    world.advance(300)
    rows = gmi_rows(world)
    for row in rows:
        moment = row["created_at"]
        iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        row["created_at"] = iso if form == "ISO" else int(moment * 1000)
    show(world, GMI, {"requests": rows})
    outcome = world.run(world.gmi())
    assert (outcome.end, world.cloud.accepted()) == ("result", 1)


@pytest.mark.parametrize("shape", ["unknown name", "times in words", "no times", "rows of another kind"])
def test_a_list_of_gmi_that_is_not_understood_proves_nothing(world, shape):
    world.lose(GMI)
    world.advance(300)
    rows = gmi_rows(world)
    show(
        world,
        GMI,
        {
            "unknown name": {"results": rows},
            "times in words": {"requests": [{**row, "created_at": "soon"} for row in rows]},
            "no times": {"requests": [{k: v for k, v in row.items() if k != "created_at"} for row in rows]},
            "rows of another kind": {"requests": ["gmi-0001"]},
        }[shape],
    )
    outcome = world.run(world.gmi())
    world.check("submit", f"gmi: answer lost, then a list with {shape}", outcome, end="SubmissionUnknown", posts=1)


def test_a_list_of_gmi_that_may_be_cut_off_proves_nothing(world):
    world.lose(GMI)
    world.advance(300)
    world.cloud.control(flood={GMI: 25})
    rows, before = gmi_rows(world), world.cloud.accepted()
    show(world, GMI, {"requests": rows[:20], "next_page_token": "abc", "total": 26})
    outcome = world.run(world.gmi())
    assert outcome.end == "SubmissionUnknown"
    assert "set take to 2" in str(outcome.error)
    assert world.cloud.accepted() == before
    world.cloud.faults("gmi.list")  # and the whole of it does
    again = world.run(world.gmi(), plan=["success"])
    assert (again.end, again.value.resumed, world.cloud.accepted()) == ("result", False, before)


def test_a_list_of_gmi_that_is_not_in_order_proves_nothing(world):
    world.lose(GMI)
    world.advance(300)
    world.cloud.control(flood={GMI: 25})
    rows, before = gmi_rows(world), world.cloud.accepted()
    others = [{**row, "request_id": f"gm-other-{n}"} for n, row in enumerate(rows)]
    old = [{**row, "created_at": row["created_at"] - 9000 + n} for n, row in enumerate(others)]
    show(world, GMI, {"requests": old[:20]})  # oldest first, and cut off
    assert world.run(world.gmi()).end == "SubmissionUnknown"
    assert world.cloud.accepted() == before


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "data": None},
        {"error": "maintenance"},
        {"code": 200, "message": "success", "data": {"list": [], "total": 1}},
    ],
    ids=["no data", "no envelope", "another shape"],
)
def test_a_list_of_wavespeed_that_is_not_understood_proves_nothing(world, body):
    world.lose(WAVESPEED)
    world.advance(300)
    show(world, WAVESPEED, body)
    outcome = world.run(world.wavespeed())
    world.check("submit", "wavespeed: answer lost, then no list", outcome, end="SubmissionUnknown", posts=1)


def test_a_list_with_the_same_page_for_ever_ends(world):
    world.lose(WAVESPEED)
    world.advance(300)
    row = {"id": "wa-9", "model": wan_remote.WaveSpeedRequest.model, "status": "created"}
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(world.clock.time() + 3600))
    show(world, WAVESPEED, {"code": 200, "data": {"items": [{**row, "created_at": moment}]}})
    before = len(world.cloud.records("wavespeed.list"))
    assert world.run(world.wavespeed()).end == "SubmissionUnknown"
    assert len(world.cloud.records("wavespeed.list")) - before <= 6  # three looks
