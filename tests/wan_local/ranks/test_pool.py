"""Two runs and one set of GPUs: who waits for whom, what is said, and that the end of the program waits for nobody."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from tests.wan_local.ranks.groups import HERE, gone, group, wait_until
from wan_local.errors import Cancelled
from wan_local.ranks import Busy, Pool, RankError

pytestmark = pytest.mark.long

ROOT = HERE.parents[2]
LONG = 60.0  # seconds; only a test that fails waits so long


@pytest.fixture
def pool():
    pool = Pool()
    yield pool
    pool.close()


def make():
    return group("local", world=1)


class Run(threading.Thread):
    """A run of somebody else: uses the GPUs until it is told to go on, and asks its ranks at both ends."""

    def __init__(self, pool, key="a"):
        super().__init__(daemon=True)
        self._pool, self._key = pool, key
        self.under_way, self.go_on = threading.Event(), threading.Event()
        self.got = []
        self.start()
        assert self.under_way.wait(LONG)

    def run(self):
        ranks = self._pool.lease(self._key, make)
        with ranks.in_use():
            self.got.append(ranks.call_first("total").tolist())
            self.ranks = ranks
            self.under_way.set()
            assert self.go_on.wait(LONG)
            self.got.append(ranks.call_first("total").tolist())


def test_another_setup_waits_for_the_run_under_way(pool):
    run, asked = Run(pool), []

    def stop():
        asked.append(run.ranks.alive)
        if len(asked) == 3:
            run.go_on.set()

    other = pool.lease("b", make, stop)
    run.join(LONG)
    assert run.got == [[1.0, 2.0, 3.0]] * 2
    assert asked[:3] == [True] * 3, "the run kept its ranks while somebody waited"
    assert other is not run.ranks
    assert gone(run.ranks.pids)


def test_another_run_of_the_same_setup_waits_too_and_gets_the_same_ranks(pool):
    run = Run(pool)
    held = []

    def stop():
        held.append(1)
        if len(held) == 3:
            run.go_on.set()

    ranks = pool.lease("a", make, stop)
    run.join(LONG)
    assert len(run.got) == 2
    assert ranks is run.ranks
    assert len(held) >= 3


def test_waiting_ends_with_the_users_stop_and_with_its_limit(pool):
    run = Run(pool)
    with pytest.raises(Cancelled):
        pool.lease("b", make, lambda: True)
    with pytest.raises(Busy, match=r"^another run uses the GPUs and still did after 0.2 s; "):
        pool.lease("b", make, limit=0.2)
    with pytest.raises(Busy), run.ranks.in_use(limit=0.2):
        pass
    with pytest.raises(Busy):
        run.ranks.call("nothing", wait=0.2)
    assert not pool.close_if_idle()
    run.go_on.set()
    run.join(LONG)
    assert len(run.got) == 2
    assert pool.close_if_idle()
    assert gone(run.ranks.pids)


def test_the_garbage_collector_may_end_a_run_at_any_moment(pool):
    """A run that nobody holds any more is ended where it is collected: also inside the pool, in the same thread."""
    ranks = pool.lease("a", make)
    done = []

    def collected():
        with pool._change, ranks._ending, ranks._launcher._spawning, ranks.lock.held():
            pool.close()
        done.append(gone(ranks.pids))

    thread = threading.Thread(target=collected, daemon=True)
    thread.start()
    thread.join(LONG)
    assert done == [True]


def test_a_run_can_hold_what_it_holds_but_not_change_the_setup(pool):
    ranks = pool.lease("a", make)
    with ranks.in_use():
        with ranks.in_use():
            assert pool.lease("a", make) is ranks
        with pytest.raises(Busy, match="this run uses the GPUs with another setup"):
            pool.lease("b", make)
        assert ranks.call("nothing") == [None]
    assert pool.lease("b", make) is not ranks


def test_a_run_whose_ranks_have_died_gets_fresh_ones(pool):
    ranks = pool.lease("a", make)
    with ranks.in_use():
        with pytest.raises(RankError, match="bad weight"):
            ranks.call("wrong", "value")
        fresh = pool.lease("a", make)
        assert fresh is not ranks
        assert fresh.call("nothing") == [None]


def test_the_ranks_of_a_run_that_was_not_held_say_who_ended_them(pool):
    first = pool.lease("a", make)
    pool.lease("b", make)
    with pytest.raises(RankError, match="the group has ended: its GPUs were wanted for another setup") as caught:
        first.call("nothing", stage="step 2")
    assert caught.value.rank is None


def test_ranks_can_be_ended_while_they_load(pool):
    """As by a node that frees the GPUs; whoever waited for them reads who did it."""
    started, told = [], []

    def slow():
        started.append(group("local", nap=600, limits={"load": 600}))
        return started[0]

    def lease():
        try:
            pool.lease("a", slow)
        except RankError as error:
            told.append(str(error))

    thread = threading.Thread(target=lease, daemon=True)
    thread.start()
    assert wait_until(lambda: started and len(started[0].pids) == 2, LONG)
    pool.close()
    thread.join(LONG)
    assert len(told) == 1
    assert "the group has ended: it was closed" in told[0]
    assert "SIGKILL" not in told[0]
    assert gone(started[0].pids)
    assert pool.lease("a", make).call("nothing") == [None]


PROGRAM = """
import sys, threading, time
sys.path.append(sys.argv[1])
from tests.wan_local.ranks.groups import group
from wan_local.ranks import Pool
pool, made = Pool(), []
def slow():
    made.append(group("local", nap=600, limits={"load": 600}))
    return made[0]
threading.Thread(target=lambda: pool.lease("a", slow), daemon=True).start()
while not (made and len(made[0].pids) == 2):
    time.sleep(0.05)
print(*made[0].pids, flush=True)
"""


def test_the_end_of_the_program_does_not_wait_until_the_ranks_are_loaded():
    """Ctrl-C on the host: its main thread ends while a thread of its own waits for ranks that load for ten minutes."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(ROOT)], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            pids = [int(word) for word in program.stdout.readline().split()]
            assert len(pids) == 2
            began = time.monotonic()
            program.wait(LONG)
            print(f"ended after {time.monotonic() - began:.1f} s")
        finally:
            program.kill()
    assert gone(pids, 5)
