"""What the journal keeps of a job, for how long, and that entries of the format before this one are read."""

from __future__ import annotations

import io
import json
import os

import pytest
from PIL import Image

from tests.wan_remote.fault_case import BOTH, GMI, WAVESPEED
from tests.wan_remote.stand_in.client import GMI_KEY
from wan_remote.journal import Journal, folder
from wan_remote.journal.entry import former_fingerprint
from wan_remote.states import State

NEW = ("take", "price", "note")


def as_format_1(world, **changes: object) -> None:
    """The one entry as format 1 had it: named after the account too, without what came since."""
    [path] = world.entries()
    entry = Journal(folder=path.parent).read(path.stem)
    assert entry is not None
    name = former_fingerprint(entry, entry.scope)
    row = {key: value for key, value in json.loads(path.read_text()).items() if key not in NEW}
    path.unlink()
    (path.parent / f"{name}.json").write_text(json.dumps({**row, "v": 1, "fingerprint": name, **changes}))


@pytest.mark.parametrize("provider", BOTH)
def test_a_clip_of_format_1_is_used(world, provider):
    first = world.run(world.request(provider))
    as_format_1(world)
    again = world.run(world.request(provider))
    assert (again.end, again.value.path, again.value.resumed) == ("result", first.value.path, True)
    assert (again.value.take, world.cloud.posts(), len(world.entries())) == (1, 1, 1)
    assert world.run(world.request(provider, take=2)).value.request_id != first.value.request_id


@pytest.mark.parametrize("state", ["submitted", "missing", "gone", "done"])
def test_a_job_of_format_1_is_gone_on_with(world, state):
    assert world.run(world.gmi(), plan=["queued"], wait_seconds=10).end == "StillRunning"
    as_format_1(world, state=state)
    world.cloud.control(finish="success")
    again = world.run(world.gmi())
    assert (again.end, again.value.resumed, world.cloud.posts()) == ("result", True, 1)


def test_a_damaged_entry_of_format_1_is_not_taken_for_none(world):
    world.run(world.wavespeed())
    as_format_1(world)
    [path] = world.entries()
    path.rename(path.with_suffix(".damaged-0"))
    world.cloud.settings(list_style="empty")
    assert world.run(world.wavespeed()).end == "SubmissionUnknown"
    assert world.cloud.posts() == 1


def test_of_several_entries_the_paid_one_counts(world):
    first = world.run(world.gmi())
    as_format_1(world)
    [path] = world.entries()
    row = json.loads(path.read_text())
    other = {**row, "fingerprint": "0" * 40, "scope": "another", "state": "rejected", "id": "", "intent_at": 9e9}
    (path.parent / f"{'0' * 40}.json").write_text(json.dumps(other))
    assert world.run(world.gmi()).value.request_id == first.value.request_id
    assert world.cloud.posts() == 1


@pytest.mark.parametrize("provider", BOTH)
def test_what_a_list_of_jobs_needs_is_kept(world, provider):
    graph = json.dumps({"nodes": [{"id": 7, "type": "WanFLF2VGMI"}], "note": f"my key is {GMI_KEY}"})
    world.run(world.request(provider, take=3), graph=graph)
    [path] = world.entries()
    row = json.loads(path.read_text())
    asked = row["parameters"]
    assert (row["take"], row["seed"], asked["prompt"]) == (3, 7, world.request(provider).prompt)
    assert (asked.get("video_length"), asked.get("duration")) == ((5, None) if provider == GMI else (None, 5))
    assert row["price"] == (0.3 if provider == WAVESPEED else None)
    with Image.open(io.BytesIO(path.with_suffix(".jpg").read_bytes())) as shown:
        assert shown.format == "JPEG"
        assert max(shown.size) == 160
    kept = path.with_suffix(".graph")
    assert json.loads(kept.read_text())["nodes"] == [{"id": 7, "type": "WanFLF2VGMI"}]
    assert (GMI_KEY in kept.read_text()) is (provider != GMI)  # the key of this cloud is cut out
    kept.unlink()
    if os.name == "posix":
        assert path.with_suffix(".jpg").stat().st_mode & 0o777 == 0o600


def test_a_graph_without_end_is_not_kept(world, monkeypatch):
    monkeypatch.setattr(folder, "MOST_GRAPH", 10_000)
    assert world.run(world.gmi(), graph="x" * 10_001).end == "result"
    [path] = world.entries()
    assert not path.with_suffix(".graph").exists()
    assert path.with_suffix(".jpg").exists()


def test_a_price_that_can_not_be_had_holds_nothing_up(world):
    world.cloud.faults("wavespeed.price", {"kind": "answer", "status": 500, "text": "down"})
    assert world.run(world.wavespeed()).value.price is None
    assert world.run(world.wavespeed(prompt="another")).value.price == 0.3


def test_what_ended_is_kept_for_three_months_and_what_did_not_for_ever(world):
    failed, waiting = world.gmi(), world.gmi(prompt="another")
    assert world.run(failed, plan=["failed"]).end == "JobFailed"
    assert world.run(waiting, plan=["queued"], wait_seconds=10).end == "StillRunning"
    for days, count in ((80, 3), (11, 3)):
        world.advance(days * 86400)
        for entry in world.entries():
            os.utime(entry, (1.0, 1.0))
            os.utime(entry.with_suffix(".jpg"), (1.0, 1.0))
        world.run(world.gmi(prompt=f"after {days} more days"))
        assert len(world.entries()) == count
    assert State.SUBMITTED.value in world.states()
    assert len(list(world.state.rglob("*.jpg"))) == 3
