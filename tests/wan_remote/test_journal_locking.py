"""One run of the same inputs at a time, and one that takes an id from a list."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
import time

import pytest

import wan_remote
from tests.wan_remote.journals import NAME
from wan_remote import locks
from wan_remote import watch as watches
from wan_remote.errors import Interrupted
from wan_remote.journal import Journal
from wan_remote.locks import try_lock
from wan_remote.watch import Watch


def test_one_run_of_the_same_inputs_at_a_time(journal):
    order = []

    class Told(Watch):
        def stage(self, text, done=None, total=None):
            order.append(text)

    async def one(name, seconds):
        async with journal.alone(NAME, Told()):
            order.append(f"{name} in")
            await asyncio.sleep(seconds)
            order.append(f"{name} out")

    async def both():
        first = asyncio.create_task(one("first", 0.3))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, one("second", 0.0))

    asyncio.run(both())
    waiting = "another run of the same inputs is under way; waiting for it"
    assert order == ["first in", waiting, "first out", "second in", "second out"]


def test_waiting_for_another_run_can_be_stopped(journal):
    class Pressed(Watch):
        def interrupted(self):
            return True

    async def both():
        async with journal.alone(NAME, Watch()):
            async with journal.alone(NAME, Pressed()):
                raise AssertionError("two at once")

    with pytest.raises(Interrupted):
        asyncio.run(both())


def test_a_claim_keeps_others_waiting(journal: Journal) -> None:
    order = []
    with journal.claiming():
        other = threading.Thread(target=lambda: claim(journal, order))
        other.start()
        time.sleep(0.15)
        order.append("first")
    other.join(5)
    assert order == ["first", "second"]
    with (journal.folder / "claims.lock").open("a+b") as one, (journal.folder / "claims.lock").open("a+b") as two:
        assert try_lock(one, journal.folder)
        assert not try_lock(two, journal.folder)


def claim(journal: Journal, order: list[str]) -> None:
    with journal.claiming():
        order.append("second")


def test_a_claim_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LONGEST_HELD", 0.2)
    book = Journal(folder=tmp_path)
    with book.claiming():
        began = time.monotonic()
        with pytest.raises(wan_remote.errors.StorageError, match="held by another program"), book.claiming():
            pass
        assert 0.2 <= time.monotonic() - began < 5.0
    with book.claiming():
        pass


def test_a_lock_that_was_taken_away_holds_nobody_off(tmp_path):
    """Two runs must not hold two files that had the same name."""
    book = Journal(folder=tmp_path)
    order: list[str] = []

    async def first() -> None:
        async with book.alone("n", watches.Watch()):
            await asyncio.sleep(0.1)
            (tmp_path / "n.lock").unlink()
            order.append("first")

    async def second() -> None:
        await asyncio.sleep(0.05)
        async with book.alone("n", watches.Watch()):
            assert (tmp_path / "n.lock").exists()
            order.append("second")

    async def both() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(both())
    assert order == ["first", "second"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_before_paying(world, monkeypatch, number):
    def no(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no)
    outcome = world.run(world.gmi())
    world.check(
        "before", f"gmi: no locks ({errno.errorcode[number]})", outcome, end="StorageError", posts=0, accepted=0
    )
    assert "local disk" in str(outcome.error)
