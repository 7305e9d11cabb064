"""One contract for both launchers: real processes, gloo on the CPU, and everything that can happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.wan_local.ranks.groups import (
    HERE,
    LAUNCHERS,
    folders,
    gone,
    group,
    in_sessions,
    runs,
    session,
    strike,
    there,
    wait_until,
)
from wan_local.errors import Cancelled, InputError
from wan_local.ranks import Pool, RankError
from wan_local.ranks import group as group_module

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="the tests send signals")]
ANSWER_SECONDS = 10.0  # from a rank's death to the error; far above what is seen, far below any limit


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request):
    return request.param


@pytest.fixture(scope="module")
def address(launcher, request):
    return "" if launcher == "local" else request.getfixturevalue("cluster").address


@pytest.fixture(scope="module")
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A file in which every rank leaves a line when it has read its weights."""
    return tmp_path_factory.mktemp("read") / "log"


@pytest.fixture
def make(launcher, address, read):
    return lambda: group(launcher, address, log=str(read))


@pytest.fixture(scope="module")
def key(launcher):
    """What the pool knows the living group by, in a list: a test may change it."""
    return [f"toy of {launcher}"]


@pytest.fixture
def ranks(launcher, pool, make, key):
    """The living group of this launcher: a fresh one after a test that has ended it, as in the next run of a user."""
    began = time.monotonic()
    ranks = pool.lease(key[0], make)
    assert ranks.spec.launcher == launcher
    print(f"{ranks.spec.launcher}: there after {time.monotonic() - began:.2f} s")
    return ranks


def test_a_call_reaches_every_rank_and_they_reach_each_other(ranks):
    assert [value.tolist() for value in ranks.call("total")] == [[3.0, 6.0, 9.0]] * 2
    told = ranks.call("about")
    assert [one["info"]["rank"] for one in told] == [0, 1]
    assert [one["pid"] for one in told] == ranks.pids
    assert os.getpid() not in ranks.pids
    assert not any(one["grad"] for one in told)
    assert [one["info"]["timeout"] for one in told] == [ranks.spec.limits.collective] * 2
    assert ranks.call("about", first=True)[1] is None
    assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]


def test_big_and_odd_tensors_come_back_equal(ranks):
    latents = torch.randn(1, 16, 21, 90, 160)  # 19 MB, the latents of a 720p clip
    half = latents[:, :, 0].to(torch.bfloat16)
    sent = {"x": latents, "more": [half, torch.tensor(3), torch.empty(0, 4), torch.ones(5, dtype=torch.bool)], "t": 0.5}
    for back in ranks.call("echo", sent, None):
        assert back[1] is None
        assert torch.equal(back[0]["x"], latents)
        assert back[0]["more"][0].dtype == torch.bfloat16
        assert all(torch.equal(a, b) for a, b in zip(back[0]["more"], sent["more"], strict=True))
        assert back[0]["t"] == 0.5
    assert ranks.call("fill", torch.zeros(300_000))[1].sum() == 300_000


def test_ranks_see_no_foreign_module_and_prints_do_no_harm(ranks):
    assert ranks.call("spoil") == ["", ""]
    for names in ranks.call("modules"):
        assert not {"nodes", "comfy", "tests"} & set(names)
    for path in ranks.call("path"):
        assert str(HERE.parents[2] / "wan_local" / "ranks") not in path  # a script's own folder
        assert str(HERE.parents[2]) not in path  # the pack's folder nodes/ can't hide another nodes
    assert ranks.alive


def test_what_can_not_be_sent_leaves_the_group_alone(ranks):
    with pytest.raises(InputError, match="can't be sent"):
        ranks.call("echo", object())
    assert ranks.alive
    assert ranks.call("nothing") == [None, None]


def test_the_end_of_a_run_is_said_without_waiting_for_it(ranks):
    assert ranks.call("litter") == [1, 1]
    ranks.free_memory()
    assert ranks.call("litter_left") == [0, 0]


def test_times(ranks):
    """Not a bar, a measurement: printed with -s or -rA."""
    laps = []
    for _ in range(30):
        began = time.monotonic()
        ranks.call("nothing")
        laps.append(time.monotonic() - began)
    latents = torch.randn(1, 16, 21, 90, 160)
    began = time.monotonic()
    ranks.call_first("echo", latents)
    there_and_back = time.monotonic() - began
    laps.sort()
    empty = " / ".join(f"{laps[i] * 1e3:.2f}" for i in (0, 15, -1))
    print(
        f"{ranks.spec.launcher}: empty call {empty} ms (min / median / max), 19 MB to both ranks and back from one "
        f"{there_and_back * 1e3:.0f} ms"
    )
    assert laps[15] < 1.0


def test_the_users_stop_keeps_the_ranks(ranks):
    """Stopped within the limit though the call goes on; the next call waits for its end and is right."""
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ranks.call("together", 2.0, stop=lambda: time.monotonic() > began + 0.3)
    assert time.monotonic() - began < 1.8
    assert ranks.alive
    assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]

    class HostStop(Exception):
        pass

    def stop():
        raise HostStop

    with pytest.raises(HostStop):
        ranks.call("together", 0.1, stop=stop)
    assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]


def test_two_runs_reuse_the_ranks_and_a_changed_key_does_not(ranks, pool, make, read, key):
    assert pool.lease(key[0], make) is ranks
    assert sorted(read.read_text().split()[-2:]) == ["0", "1"]
    before = len(read.read_text().split())
    key[0] = "other weights"
    other = pool.lease(key[0], make)
    assert not set(other.pids) & set(ranks.pids)
    assert gone(ranks.pids), "the old ranks are ended before the new ones read their weights"
    assert not ranks.alive
    assert len(read.read_text().split()) == before + 2


def failing(ranks, *args, **options):
    """The error of a call, and what must hold after any: the group is over and no process is left."""
    with pytest.raises(RankError) as caught:
        ranks.call(*args, stage="step 3", **options)
    error = caught.value
    assert gone(ranks.pids), "survivors are ended before the error is raised"
    assert not ranks.alive
    assert "\n" not in str(error)
    assert error.stage == "step 3"
    assert "step 3" in str(error)
    with pytest.raises(RankError, match="has ended"):
        ranks.call("nothing")
    return error


def test_a_rank_killed_in_a_collective(ranks, launcher, tmp_path):
    with strike(ranks.pids[1], signal.SIGKILL, tmp_path / "in") as sent:
        error = failing(ranks, "wait_for_the_last", str(tmp_path / "in"))
    assert time.monotonic() - sent[0] < ANSWER_SECONDS
    assert error.rank == 1
    assert ("SIGKILL" if launcher == "local" else "killed") in error.cause


def test_ranks_that_we_end_ourselves_during_a_call_were_not_killed_by_somebody():
    """The error names who ended them, and neither a rank to blame nor a signal."""
    ranks = group("local")
    ranks.start()
    error = failing(ranks, "wait_for_the_last", stop=lambda: ranks.close("the GPUs were given back"))
    assert error.rank is None
    assert error.cause == "the group has ended: the GPUs were given back; start a new one"


def test_a_rank_lost_between_two_runs_costs_a_load_and_no_run(ranks, pool, make, key, monkeypatch):
    monkeypatch.setattr(group_module, "PING_SECONDS", 3.0)  # so long a frozen one is waited for
    for number in (signal.SIGKILL, signal.SIGSTOP):
        before = pool.lease(key[0], make)
        before.call("nothing")
        before.free_memory()  # its answers are not taken for signs of life later
        os.kill(before.pids[1], number)
        assert wait_until(lambda rank=before.pids[1]: not runs(rank), 10)
        fresh = pool.lease(key[0], make)
        assert fresh is not before
        assert gone(before.pids)
        assert fresh.call_first("total").tolist() == [3.0, 6.0, 9.0]
    assert pool.lease(key[0], make) is fresh


def test_a_rank_frozen_in_a_collective(ranks, tmp_path):
    """SIGSTOP of the last rank while the other waits for it: the frozen one is blamed, and really ended."""
    with strike(ranks.pids[1], signal.SIGSTOP, tmp_path / "in") as sent:
        error = failing(ranks, "wait_for_the_last", str(tmp_path / "in"), timeout=2)
    assert time.monotonic() - sent[0] < 2 + ANSWER_SECONDS
    assert error.rank == 1
    assert "silent" in error.cause


def test_ranks_that_never_come_to_an_end(ranks):
    began = time.monotonic()
    error = failing(ranks, "wait_for_the_last", timeout=1.0)
    assert time.monotonic() - began < 1 + ANSWER_SECONDS
    assert error.rank is None, "both ranks say that they are there, so nobody is blamed"
    assert "within 1 s" in error.cause


def test_an_exception_on_one_rank(ranks):
    began = time.monotonic()
    error = failing(ranks, "wrong", "value", 0.3)
    assert time.monotonic() - began < ANSWER_SECONDS
    assert error.rank == 1
    assert "ValueError: bad weight in block 7" in error.cause


def test_the_users_stop_while_the_ranks_start(launcher, address):
    """Weights take minutes to load: that can be stopped too, and nothing is left."""
    ranks = group(launcher, address, nap=60)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ranks.start(stop=lambda: len(ranks.pids) == 2 and time.monotonic() > began + 1)
    assert time.monotonic() - began < 30
    assert len(ranks.pids) == 2
    assert gone(ranks.pids)


def test_ranks_that_fail_to_load():
    broken = group("local", fail="this file is no model")
    with pytest.raises(RankError, match="this file is no model") as caught:
        broken.start()
    assert (caught.value.rank, caught.value.stage) == (1, "loading")
    assert len(broken.pids) == 2
    assert gone(broken.pids)


def test_another_software_version_is_named(monkeypatch):
    here = group_module.versions()
    monkeypatch.setattr(group_module, "versions", lambda: {**here, "torch": "9.9.9"})
    odd = group("local", world=1)
    with pytest.raises(RankError) as caught:
        odd.start()
    assert f"torch {here['torch']} there, 9.9.9 here" in str(caught.value)
    assert gone(odd.pids)


@pytest.mark.parametrize("kind", LAUNCHERS)
def test_no_rank_outlives_a_killed_driver(kind, tmp_path):
    """The driver is killed while its ranks sit in a collective. Ray is started by the driver itself here."""
    driver = subprocess.Popen(
        [sys.executable, str(HERE / "driver.py"), kind, str(tmp_path / "in")],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    sessions = {driver.pid}
    try:
        pids = [int(word) for word in driver.stdout.readline().split()]
        sessions |= {session(pid) for pid in pids}
        assert wait_until((tmp_path / "in").exists, 30)
        assert all(map(there, pids))
        assert bool(folders(pids)) == (kind == "local")
        driver.kill()
        driver.wait()
        killed = time.monotonic()
        assert gone(pids, 5.0), "ranks end with their driver"
        print(f"{kind}: ranks gone {time.monotonic() - killed:.2f} s after the driver")
        assert not folders(pids)
        assert wait_until(lambda: not in_sessions(sessions), 10), "nothing else is left either"
    finally:
        driver.stdout.close()
        for pid in in_sessions(sessions):
            os.kill(pid, signal.SIGKILL)
