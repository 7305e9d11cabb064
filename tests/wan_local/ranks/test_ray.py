"""Ray alone: several machines (nodes here stand for them), one of them lost; addresses; what there is no room for."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from tests.wan_local.ranks.conftest import CPUS
from tests.wan_local.ranks.groups import (
    HERE,
    NO_RAY,
    children,
    gone,
    group,
    in_sessions,
    session,
    there,
    wait_until,
)
from wan_local.errors import InputError
from wan_local.ranks import GroupSpec, RankError, RankGroup, process, ray_process

pytestmark = [pytest.mark.long, NO_RAY]
ROOT = HERE.parents[2]


def spread(cluster):
    return group("ray", cluster.address, placement="STRICT_SPREAD", cpus=1)


def test_two_machines_one_of_them_lost(cluster, tmp_path):
    """A rank on each; the second node is taken away while both work together; the next run uses a third."""
    cluster.tell("add two")
    ranks = spread(cluster)
    ranks.start()
    assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]
    began = []

    def lose():
        if not began and (tmp_path / "in").exists():
            cluster.tell("lose two")
            began.append(time.monotonic())

    with pytest.raises(RankError) as caught:
        ranks.call("wait_for_the_last", str(tmp_path / "in"), stage="step 5", stop=lose)
    print(f"error {time.monotonic() - began[0]:.1f} s after the node was lost: {caught.value}")
    assert time.monotonic() - began[0] < 20
    assert caught.value.rank == 1
    assert caught.value.place.startswith("Ray node ")
    assert caught.value.stage == "step 5"
    assert gone(ranks.pids, 5)

    cluster.tell("add three")
    with spread(cluster) as again:
        again.start()
        assert again.call_first("total").tolist() == [3.0, 6.0, 9.0]


def test_more_ranks_than_the_cluster_has_room_for(cluster):
    ranks = group("ray", cluster.address, world=40, cpus=1)
    with pytest.raises(InputError, match=r"Ray has no 40 CPU \(ranks: 40\), its cluster has \d+; ask for fewer ranks"):
        ranks.start()
    assert ranks.pids == []
    GPUs = GroupSpec(target="toy_rank:Toy", devices=("cuda", "cuda"), launcher="ray", ray=ranks.spec.ray)
    with pytest.raises(InputError, match=r"Ray has no 2 GPU \(ranks: 2\), its cluster has 0"):
        RankGroup(GPUs).start()
    few, many = cluster.nodes, cluster.nodes + 1
    with pytest.raises(InputError, match=rf"{many} ranks on a machine each, the Ray cluster has {few}; add machines"):
        group("ray", cluster.address, world=many, placement="STRICT_SPREAD", cpus=0.25).start()


def test_room_that_is_taken(cluster):
    """Enough in all, but somebody else has it: Ray would wait for ever, we say what is free."""
    with group("ray", cluster.address, world=cluster.nodes, cpus=CPUS) as other:
        other.start()
        late = group("ray", cluster.address, world=1, cpus=CPUS, limits={"start": 4})
        with pytest.raises(InputError, match=r"no room in the Ray cluster for 1 x 4 CPU; free now: "):
            late.start()
        assert other.alive, "nobody else's ranks are touched"
        assert other.call("nothing") == [None] * cluster.nodes


def test_an_address_where_nothing_answers():
    began = time.monotonic()
    ranks = group("ray", "127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Ray head node at 127.0.0.1:9 .*ray start --head"):
        ranks.start()
    assert time.monotonic() - began < 15
    assert ranks.pids == []


def test_an_address_where_something_else_answers(tmp_path):
    """A port that takes connections and says nothing: Ray's own wait is cut at our limit, and nothing is left."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        ranks = group("ray", f"127.0.0.1:{silent.getsockname()[1]}", limits={"start": 3})
        with pytest.raises((RankError, InputError)) as caught:
            ranks.start()
    assert time.monotonic() - began < 3 + 6
    assert "\n" not in str(caught.value)
    assert "Ray" in str(caught.value)


@pytest.mark.parametrize("how", ["closed", "its helper killed"])
def test_a_ray_of_our_own_leaves_nothing(how):
    """Without the helper nobody can speak to the ranks any more: they are ended, and the error says so."""
    ranks = group("ray")
    ranks.start()
    (helper,) = children("ray_process")
    started = in_sessions({session(pid) for pid in [helper, *ranks.pids]})
    assert len(started) > 5
    assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]
    if how != "closed":
        with pytest.raises(RankError, match="the process that speaks to Ray is gone: killed by SIGKILL"):
            ranks.call("together", 30.0, stop=lambda: os.kill(helper, signal.SIGKILL))
        assert gone(ranks.pids, 5)
    ranks.close()
    assert gone(started, 3), [pid for pid in started if there(pid)]


def test_a_process_of_another_machine_is_ended_by_a_task_there():
    """The function Ray runs on the other machine, run here: ends a frozen process, none that only has its number."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        os.kill(child.pid, signal.SIGSTOP)
        real = process.Process(pid=child.pid, machine=process.machine(), started=process.started_at(child.pid))
        _, reap = ray_process.sent_to_workers(importlib.import_module("ray"))
        assert reap(ray_process.START, {**asdict(real), "started": "1"}), "that one is gone already"
        assert there(child.pid)
        assert wait_until(lambda: child.poll() is None, 0.2)
        reap(ray_process.START, asdict(real))
        assert child.wait(5) == -signal.SIGKILL
    finally:
        child.kill()


def test_the_pack_lies_elsewhere_on_the_other_machine(cluster, tmp_path):
    """The sentence of the rank is what the user reads, whole and without Ray's traceback around it."""
    elsewhere = tmp_path / "a folder with a long name, as they are" / "custom_nodes" / "ComfyUI-WanFLF2V"
    shutil.copytree(ROOT / "wan_local", elsewhere / "wan_local", ignore=shutil.ignore_patterns("__pycache__"))
    module = elsewhere / "wan_local" / "ranks" / "ray_process.py"
    text = module.read_text()
    where = "/home/somebody/comfyui/ComfyUI/custom_nodes/ComfyUI-WanFLF2V/start.py"
    (line,) = [line for line in text.splitlines() if line.startswith("START = ")]
    module.write_text(text.replace(line, f"START = {where!r}"))
    code = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from wan_local.ranks import *\n"
        "ray = RaySettings(address=sys.argv[2], auth='disabled', cpus=0.5)\n"
        "try: RankGroup(GroupSpec(target='a:B', devices=('cpu', 'cpu'), launcher='ray', ray=ray)).start()\n"
        "except Exception as error: print(type(error).__name__, error, sep=': ')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(elsewhere), cluster.address], capture_output=True, text=True, timeout=120
    )
    told = f"InputError: {platform.node()} has no {where}; install the pack at the same place there\n"
    assert done.stdout == told, done.stderr
