"""Who is to blame, from what the ranks said and in which order; the ranks are played here."""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import pytest

from wan_local.ranks import answers as answers_module
from wan_local.ranks.answers import Answers
from wan_local.ranks.launch import Event
from wan_local.ranks.messages import encode


class Played:
    """A launcher whose ranks answer what a test says; ``there`` are those that answer a ping."""

    def __init__(self, there=()):
        self.inbox = queue.SimpleQueue()
        self.there = set(there)
        self.dead = []

    def ping(self, ranks):
        for rank in set(ranks) & self.there:
            self.inbox.put(Event(rank=rank, kind="pong"))

    def gone(self):
        return self.dead

    def value(self, rank, value, number=1):
        self.inbox.put(Event(rank=rank, kind="answer", header=encode({"id": number, "value": value})[0]))

    def error(self, rank, text, kind="error"):
        header = encode({"id": 1, "error": {"kind": kind, "text": text}})[0]
        self.inbox.put(Event(rank=rank, kind="answer", header=header))

    def death(self, rank, cause="killed by SIGKILL", after=0.0):
        threading.Timer(after, self.inbox.put, [Event(rank=rank, kind="gone", cause=cause)]).start()


def wait(played, limit=5.0, ranks=2, silence=60.0):
    answers = Answers(played, 1, range(ranks), silence)
    return answers, answers.wait(limit)


def test_all_answer_in_any_order():
    played = Played()
    played.value(1, "b")
    played.value(0, "a")
    outcome = wait(played)[1]
    assert (outcome.values, outcome.left, outcome.failure) == ({0: "a", 1: "b"}, frozenset(), None)


def test_an_answer_to_a_stopped_call_is_not_taken_for_this_one():
    played = Played()
    played.value(0, "old", number=0)
    played.value(0, "new")
    assert wait(played, ranks=1)[1].values == {0: "new"}


@pytest.mark.parametrize("later", ["death", "error"])
def test_the_cause_is_told_though_its_echo_comes_first(later):
    played = Played(there={0, 1})
    played.error(0, "RuntimeError: Connection closed by peer", kind="peer")
    if later == "death":
        played.death(1, after=0.3)
    else:
        played.error(1, "ValueError: bad weight")
    failure = wait(played)[1].failure
    assert (failure.rank, failure.echo) == (1, False)
    assert failure.cause in ("killed by SIGKILL", "ValueError: bad weight")


def test_the_echo_does_not_cover_a_cause_that_came_first():
    played = Played()
    played.error(1, "ValueError: bad weight")
    played.error(0, "RuntimeError: Connection closed by peer", kind="peer")
    assert wait(played)[1].failure.rank == 1


def test_an_echo_alone_is_better_than_nothing():
    """Both are there and only one complains: a cable, say."""
    played = Played(there={0, 1})
    played.error(0, "RuntimeError: Connection reset by peer", kind="peer")
    began = time.monotonic()
    failure = wait(played)[1].failure
    assert failure.rank == 0
    assert "reset by peer" in failure.cause
    assert time.monotonic() - began < 3


def test_a_mute_rank_is_to_blame_for_the_echo(monkeypatch):
    """A lost machine says nothing, and the cluster does not know yet."""
    monkeypatch.setattr(answers_module, "NEWS_SECONDS", 0.5)
    monkeypatch.setattr(answers_module, "ECHO_SECONDS", 0.1)
    played = Played(there={0})
    played.error(0, "RuntimeError: Connection closed by peer", kind="peer")
    failure = wait(played)[1].failure
    assert failure.rank == 1
    assert "lost" in failure.cause
    assert "rank 0 says: RuntimeError" in failure.cause


@pytest.mark.parametrize(
    ("there", "answered", "rank", "told"),
    [
        ({0}, [], 1, "silent"),
        ({0, 1}, [], None, "ranks 0, 1 within 0.3 s, though all are there"),
        ({1}, [0], 1, "no answer within 0.3 s, though its process is there"),
        (set(), [0], 1, "frozen"),
    ],
)
def test_whom_to_blame_when_the_limit_has_passed(monkeypatch, there, answered, rank, told):
    monkeypatch.setattr(answers_module, "BLAME_SECONDS", 0.3)
    played = Played(there=there)
    for answer in answered:
        played.value(answer, None)
    answers, outcome = wait(played, limit=0.3)
    assert outcome.failure is None
    failure = answers.overdue(0.3, "; advice")
    assert failure.rank == rank
    assert told in failure.cause
    assert failure.cause.endswith("; advice"), "also of a silent one, which may be so for all of the limit"
    answers._silence = 0.2
    assert answers.overdue(0.3, "; advice").cause.endswith("; advice") == (told not in ("silent", "frozen"))


def test_a_death_that_no_event_tells_of():
    """A pipe that a forked process holds open: the process itself is looked at."""
    played = Played()
    played.dead = [Event(rank=1, kind="gone", cause="exit status 1")]
    failure = wait(played)[1].failure
    assert (failure.rank, failure.cause) == (1, "exit status 1")


def test_silence_is_measured_from_the_last_sign_of_life():
    """Rank 0 answers every ping and may work for as long as the limit says; rank 1 does not."""
    played = Played(there={0})
    failure = wait(played, silence=0.6)[1].failure
    assert failure.rank == 1
    assert "silent for" in failure.cause
    healthy = Played(there={0, 1})
    began = time.monotonic()
    assert wait(healthy, limit=1.5, silence=0.6)[1].failure is None
    assert time.monotonic() - began >= 1.5


class Pausing(Played):
    """The driver stands still while it asks for the user's stop the first time; the ranks go on, and are ready when it
    asks the fourth time."""

    def __init__(self, monkeypatch, seconds):
        super().__init__(there={0, 1})
        self.asked, self.still = 0, 0.0
        self.seconds = seconds
        monkeypatch.setattr(answers_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self.still))

    def stop(self):
        self.asked += 1
        if self.asked == 1:
            self.still = self.seconds
            self.ping([0, 1])
        if self.asked == 4:
            self.value(0, "a")
            self.value(1, "b")


@pytest.mark.parametrize(
    ("still", "limit", "silence"), [(90.0, 80.0, 60.0), (1.5, 80.0, 1.0)], ids=["for long", "too shortly to be noted"]
)
def test_a_driver_that_stood_still_blames_nobody(monkeypatch, still, limit, silence):
    """Neither for silence nor for the limit, which nobody could keep meanwhile."""
    played = Pausing(monkeypatch, still)
    outcome = Answers(played, 1, range(2), silence).wait(limit, played.stop)
    assert (outcome.values, outcome.failure) == ({0: "a", 1: "b"}, None)


def test_a_driver_that_stood_still_hears_the_answers_to_its_ping(monkeypatch):
    played = Pausing(monkeypatch, 90.0)
    assert Answers(played, 1, range(2), 60.0).ping_all(20.0, played.stop) is None


def test_nonsense_is_a_failure_of_who_sent_it():
    played = Played()
    played.inbox.put(Event(rank=1, kind="answer", header=b"{}"))
    failure = wait(played)[1].failure
    assert failure.rank == 1
    assert "not a message" in failure.cause


def ping_all(played, limit=0.3):
    return Answers(played, 1, range(2), 60.0).ping_all(limit)


def test_a_ping_of_all_finds_the_dead_and_the_frozen():
    assert ping_all(Played(there={0, 1}), 60.0) is None
    frozen = ping_all(Played(there={0}))
    assert (frozen.rank, frozen.cause) == (1, "silent for 0.3 s")
    told = Played(there={0, 1})
    told.inbox.put(Event(rank=1, kind="gone", cause="killed by SIGKILL"))
    assert ping_all(told, 60.0).cause == "killed by SIGKILL"
    seen = Played(there={0})
    seen.dead = [Event(rank=1, kind="gone", cause="exit status 1")]
    assert ping_all(seen, 60.0).cause == "exit status 1"


def test_an_old_sign_of_life_is_none_when_all_are_pinged():
    played = Played(there={0})
    played.inbox.put(Event(rank=1, kind="pong"))
    assert ping_all(played).rank == 1
