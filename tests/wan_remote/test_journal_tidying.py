"""What the journal forgets, and what it must not."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from tests.wan_remote.journals import NOW, entry
from wan_remote import watch as watches
from wan_remote.journal import Journal, tidying
from wan_remote.journal.tidying import KEPT
from wan_remote.states import State


def test_old_jobs_are_forgotten_unless_they_are_open(journal):
    now = journal.clock.time()
    names = {}
    for index, (state, ended) in enumerate(
        [
            (State.FETCHED, now - KEPT - 1),
            (State.FETCHED, now - KEPT + 10),
            (State.SUBMITTED, now - KEPT - 1),
            (State.INTENT, 0.0),
        ]
    ):
        name = str(index) * 40
        journal.write(entry(fingerprint=name, state=state, ended_at=ended))
        os.utime(journal.folder / f"{name}.json", (ended or 1.0, ended or 1.0))
        names[name] = index
    journal.prune(journal.folder)
    assert sorted(names[e.fingerprint] for e in journal.entries()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("state", "ended", "touched", "kept"),
    [
        (State.DONE, NOW - KEPT - 1, NOW - KEPT - 1, True),
        (State.FAILED, NOW - KEPT - 1, NOW - KEPT - 1, False),
        (State.FETCHED, 1.0, NOW - KEPT - 1, False),
        (State.FETCHED, NOW - KEPT, NOW - KEPT - 1, True),
        (State.FETCHED, NOW - KEPT + 1, NOW - KEPT - 1, True),
        (State.FETCHED, NOW - KEPT - 1, NOW - KEPT, False),
        (State.FETCHED, NOW - KEPT - 1, NOW - KEPT + 1, True),
        (State.FETCHED, 0.0, NOW - KEPT - 1, True),
        (State.SUBMITTED, NOW - KEPT - 1, NOW - KEPT - 1, True),
        (State.INTENT, NOW - KEPT - 1, NOW - KEPT - 1, True),
    ],
)
def test_what_is_forgotten(journal: Journal, state: str, ended: float, touched: float, kept: bool) -> None:
    (journal.folder / "aa.json").write_text("{")  # before and after it: others don't stop the tidying
    journal.write(entry("n", state=state, ended_at=ended))
    journal.write(entry("zz", state=State.FETCHED, ended_at=1.0))
    for path in journal.folder.glob("*.json"):
        os.utime(path, (touched, touched) if path.stem == "n" else (1.0, 1.0))
    (journal.folder / "n.lock").touch()
    journal.prune(journal.folder)
    assert (journal.folder / "n.json").exists() is kept
    assert (journal.folder / "n.lock").exists() is kept
    assert not (journal.folder / "zz.json").exists()
    journal.write(entry("n", state=State.FETCHED, ended_at=1.0))
    os.utime(journal.folder / "n.json", (1.0, 1.0))
    (journal.folder / "n.lock").unlink(missing_ok=True)
    journal.prune(journal.folder)  # no lock file there: no error
    assert not (journal.folder / "n.json").exists()


def test_a_job_that_had_a_clip_is_never_forgotten(tmp_path):
    """Its clip may lie on a drive that is away now; what a list shows of it goes only where that is not so."""
    book, theirs = Journal(folder=tmp_path / "jobs"), tmp_path / "theirs"
    for folder in (book.folder, theirs, tmp_path / "mount point"):
        folder.mkdir()
    (theirs / "here.mp4").touch()
    for name, file, output in (
        ("a", "here.mp4", theirs), ("b", "gone.mp4", theirs), ("away", "c.mp4", tmp_path / "mount point"),
        ("unplugged", "c.mp4", tmp_path / "usb"), ("before", "any.mp4", ""),
    ):  # fmt: skip
        one = entry(name, state=State.FETCHED, ended_at=1.0, file=file, output=str(output))
        book.keep_beside(book.write(one), b"jpeg", "{}")
        os.utime(tmp_path / "jobs" / f"{name}.json", (1.0, 1.0))
    book.prune(tmp_path / "ours")
    assert sorted(entry.fingerprint for entry in book.entries()) == ["a", "away", "b", "before", "unplugged"]
    assert sorted(path.stem for path in book.folder.glob("*.jpg")) == ["a", "away", "before", "unplugged"]
    assert sorted(path.stem for path in book.folder.glob("*.graph")) == ["a", "away", "before", "unplugged"]


@pytest.mark.parametrize("away", ["unplugged", "an empty mount point"])
def test_a_drive_that_is_away_buys_nothing_again(world, away):
    assert world.run(world.wavespeed()).end == "result"
    world.advance(100 * 86400)
    for path in world.entries():
        os.utime(path, (world.clock.time() - 100 * 86400,) * 2)
    world.output.rename(world.tmp / "drive")
    if away != "unplugged":
        world.output.mkdir()
    assert world.run(world.wavespeed(prompt="another")).end == "result"
    shutil.rmtree(world.output)
    (world.tmp / "drive").rename(world.output)
    again = world.run(world.wavespeed())
    assert (again.end, again.value.resumed, world.cloud.accepted()) == ("result", True, 2)


def test_what_is_worked_on_is_not_tidied_away(tmp_path):
    book = Journal(folder=tmp_path)
    old = book.write(entry("n", state=State.FAILED, ended_at=1.0))
    os.utime(tmp_path / "n.json", (1.0, 1.0))

    async def main() -> None:
        async with book.alone("n", watches.Watch()):
            book.prune(tmp_path)
            assert book.read("n") == old
        book.prune(tmp_path)
        assert book.read("n") is None

    asyncio.run(main())


def test_what_was_begun_anew_between_the_look_and_the_lock_stays(tmp_path, monkeypatch):
    book, real = Journal(folder=tmp_path), tidying.try_lock
    book.write(entry("n", state=State.FAILED, ended_at=1.0))
    os.utime(tmp_path / "n.json", (1.0, 1.0))
    anew = entry("n", state=State.INTENT, submissions=1)

    def begun(*given):
        book.write(anew)
        return real(*given)

    monkeypatch.setattr(tidying, "try_lock", begun)
    book.prune(tmp_path)
    assert book.read("n") == anew
