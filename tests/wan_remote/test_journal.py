"""The journal: what was written is read, what is damaged is set aside, and the same inputs are one entry."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from tests.wan_remote.fault_case import GMI
from tests.wan_remote.journals import NAME, entry
from wan_remote.errors import StorageError
from wan_remote.journal import Entry, Journal, fingerprint
from wan_remote.journal.entry import VERSION, same_inputs
from wan_remote.journal.format import parse
from wan_remote.states import State


def test_what_was_written_is_read(journal):
    written = journal.write(entry(state=State.SUBMITTED, id="x-1", submitted_at=12.5))
    assert journal.read(NAME) == written
    assert journal.read("0" * 40) is None
    path = journal.folder / f"{NAME}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert journal.update(written, state=State.DONE).state == State.DONE
    assert json.loads(path.read_text())["state"] == State.DONE


def test_a_write_that_dies_leaves_the_entry_before_it(journal, monkeypatch):
    journal.write(entry(state=State.SUBMITTED, id="x-1"))

    def die(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        journal.write(entry(state=State.DONE, id="x-1"))
    monkeypatch.undo()
    assert journal.read(NAME).state == State.SUBMITTED


def test_a_full_disk_is_told_and_leaves_no_scrap(journal, monkeypatch):
    journal.write(entry(state=State.SUBMITTED, id="x-1"))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device.*make room"):
        journal.write(entry(state=State.DONE))
    monkeypatch.undo()
    assert journal.read(NAME).state == State.SUBMITTED
    assert not list(journal.folder.glob("*.tmp*"))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"v": 0}', b'{"v": 1, "state": 7}', b"\xff\xfe", b"[" * 100000],
    ids=["empty", "cut", "list", "a version that never was", "wrong types", "no text", "deep"],
)
def test_a_damaged_entry_is_set_aside_once(journal, caplog, text):
    path = journal.folder / f"{NAME}.json"
    path.write_bytes(text)
    assert journal.read(NAME) is None
    assert not path.exists()
    assert [aside.read_bytes() for aside in journal.folder.glob("*.damaged-*")] == [text]
    assert "set aside" in caplog.text
    path.write_bytes(text)
    assert journal.read(NAME) is None
    assert len(list(journal.folder.glob("*.damaged-*"))) == 2
    assert journal.find(entry()) == journal.read(NAME) == entry(recovered=True)


def test_an_entry_under_another_name_is_not_believed(journal):
    journal.write(entry(state=State.FETCHED))
    other = "1" * 40
    os.rename(journal.folder / f"{NAME}.json", journal.folder / f"{other}.json")
    assert journal.read(other) is None


def test_a_folder_that_is_a_file_stops_everything(tmp_path):
    (tmp_path / "jobs").write_text("x")
    with pytest.raises(StorageError, match="can't be written.*nothing was sent"):
        Journal(folder=tmp_path / "jobs").prepare()


def test_fingerprints_differ_in_every_input():
    given = ["gmi", "m", {"prompt": "p", "seed": 1}, "a", "b", 1]
    seen = {fingerprint(*given)}  # type: ignore[arg-type]
    for index, other in enumerate(["w", "n", {"prompt": "p", "seed": 2}, "c", "d", 2]):
        seen.add(fingerprint(*[*given[:index], other, *given[index + 1 :]]))  # type: ignore[arg-type]
    assert len(seen) == 7
    assert fingerprint("gmi", "m", {"seed": 1, "prompt": "p"}, "a", "b") == NAME  # the order does not count


def test_a_fresh_entry_is_an_intent_with_nothing_known(journal: Journal) -> None:
    made = entry("n")
    assert made.state == State.INTENT
    assert made.id in ("", None)
    assert (made.submitted_at, made.ended_at) == (0.0, 0.0)
    with pytest.raises(FrozenInstanceError):
        made.state = State.DONE  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, AttributeError)):
        journal.folder = Path()  # type: ignore[misc]
    with pytest.raises(TypeError):
        Journal(Path())  # type: ignore[call-arg, misc]


def test_fingerprints_do_not_depend_on_the_order_of_anything() -> None:
    one = fingerprint("p", "m", {"a": {"x": 1, "y": 2}, "b": 1}, "f", "l")
    assert one == fingerprint("p", "m", {"b": 1, "a": {"y": 2, "x": 1}}, "f", "l")
    assert len(one) == 40
    assert set(one) <= set("0123456789abcdef")


def test_entries_are_the_newest_first_and_readable_ones_only(journal: Journal) -> None:
    for name, at in (("old", 1.0), ("new", 3.0), ("mid", 2.0)):
        journal.write(entry(name, intent_at=at))
    (journal.folder / "aa.json").mkdir()  # can't be read
    (journal.folder / "ab.json").write_text("{")
    (journal.folder / "zz.json").mkdir()
    assert [found.fingerprint for found in journal.entries()] == ["new", "mid", "old"]


def test_an_entry_that_can_not_be_read_stops_everything(journal: Journal) -> None:
    (journal.folder / "n.json").mkdir()
    with pytest.raises(StorageError, match="n.json can't be read .*; nothing was sent"):
        journal.read("n")


def test_entries_are_private_and_sorted(journal: Journal) -> None:
    journal.write(entry("n"))
    path = journal.folder / "n.json"
    assert list(json.loads(path.read_text())) == sorted(json.loads(path.read_text()))
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert journal.folder.stat().st_mode & 0o077 == 0
    assert not list(journal.folder.glob("*.tmp-*"))


@pytest.mark.parametrize(
    "row", [[], None, 1, {}, {"v": 0}, {"v": "1"}, {"v": 99}, {"v": 1, "fingerprint": 3}, {"v": 1, "state": "x"}]
)  # fmt: skip
def test_rows_that_are_no_entries(row: object) -> None:
    assert parse(json.dumps(row).encode()) is None


def test_a_damaged_entry_whose_job_is_over_is_bought_again_only_as_another_take(world):
    world.run(world.wavespeed())
    [path] = world.entries()
    path.write_bytes(b"")
    world.advance(8 * 86400)
    assert world.run(world.wavespeed(prompt="another")).end == "result"  # so the list shows jobs of this account
    for _ in range(2):
        assert world.run(world.wavespeed()).end == "SubmissionUnknown"
        world.advance(2000)
    assert world.cloud.accepted() == 2
    outcome = world.run(world.wavespeed(take=2))
    world.check("control", "wavespeed: damaged entry, job is over, take 2", outcome, end="result", posts=3, accepted=3)


def test_an_entry_of_a_newer_version_is_left_alone(world):
    world.run(world.gmi())
    [path] = world.entries()
    text = json.dumps({**json.loads(path.read_text()), "v": VERSION + 1})
    path.write_text(text)
    outcome = world.run(world.gmi())
    world.check("control", "gmi: journal of a newer version", outcome, end="StorageError", posts=1, journal=None)
    assert "newer version" in str(outcome.error)
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["provider", "model", "parameters", "first", "last", "take"])
def test_the_same_inputs_are_the_same_in_all_of_them(name):
    one = Entry(
        fingerprint="a", provider=GMI, model="m", scope="a", parameters={"prompt": "p"}, first="f", last="l", seed=1
    )
    assert same_inputs(one, replace(one, fingerprint="b", scope="b", seed=2, state=State.DONE, id="x"))
    other = {"parameters": {"prompt": "q"}, "take": 2}.get(name, "other")
    assert not same_inputs(one, replace(one, **{name: other}))
    assert not same_inputs(replace(one, **{name: other}), one)


def test_a_long_journal_is_read_once_and_what_changed_in_it_again(journal, monkeypatch):
    for number in range(20):
        journal.write(entry(f"{number}" * 40, take=number + 10))
    read, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or real(path))
    for take in (1, 2, 3):
        assert journal.find(entry("f" * 40, take=take)) is None
    assert len([name for name in read if name[0] != "f"]) == 20
    other = journal.write(entry("a" * 40, take=2, id="x-1", state=State.SUBMITTED))  # by another program
    assert journal.find(entry("f" * 40, take=2)) == replace(other, fingerprint="f" * 40)
    assert not (journal.folder / f"{'a' * 40}.json").exists()


def test_inputs_of_odd_kinds_are_compared_all_the_same(journal):
    odd = journal.write(entry("a" * 40, parameters={"prompt": "p", "extra": ["a", "list"]}, id="x-1"))
    wanted = replace(odd, fingerprint="f" * 40, id="")
    found = journal.find(wanted)
    assert found is not None
    assert found.id == "x-1"
