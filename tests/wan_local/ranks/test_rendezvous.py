"""The rendezvous: nobody else can come in, whatever torch was built with."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from tests.wan_local.ranks.groups import HERE, folders, group
from wan_local.ranks import RankError, rendezvous
from wan_local.ranks import group as group_module
from wan_local.ranks.messages import decode, encode
from wan_local.ranks.rank import Rank

linux = pytest.mark.skipif(sys.platform != "linux", reason="the test uses 127.0.0.2")


def ask(rank, operation, **given):
    """What a rank answers to one message of its driver."""
    answer = decode(*rank.handle(*encode({"id": 1, "op": operation, **given})))
    assert "error" not in answer, answer
    return answer["value"]


def listening(pid):
    """The address of every TCP socket on which a process listens."""
    sockets = psutil.net_connections("tcp")
    return [found.laddr.ip for found in sockets if found.pid == pid and found.status == psutil.CONN_LISTEN]


def test_ranks_of_one_machine_meet_in_a_folder_of_their_own_and_listen_to_this_machine_alone():
    with group("local") as ranks:
        ranks.start()
        (folder,) = folders(ranks.pids)
        if os.name != "nt":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        if sys.platform == "linux":
            assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]
            addresses = [address for pid in ranks.pids for address in listening(pid)]
            assert addresses, "gloo listens somewhere, or this test looks at the wrong place"
            assert set(addresses) == {"127.0.0.1"}
    assert not folder.exists()


WITHOUT = """
import torch.distributed as dist
def store(*args, use_libuv=True, **more):
    raise dist.DistStoreError("use_libuv was requested but PyTorch was built without libuv support")
def never(*args, **more):
    raise AssertionError("pickle")
dist.TCPStore = store
dist.all_gather_object = dist.broadcast_object_list = dist.gather_object = dist.scatter_object_list = never
"""


def test_ranks_of_one_machine_need_neither_a_server_of_torch_nor_pickle(tmp_path, monkeypatch):
    """torch for Windows is built without the library that torch's own server asks for; and a rank that unpickled what
    it gets from the network would run whatever somebody else sends."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with group("local") as ranks:
        ranks.start()
        assert ranks.call_first("total").tolist() == [3.0, 6.0, 9.0]


@linux
def test_the_rendezvous_of_several_machines_listens_at_one_address_and_its_keys_are_secret():
    import torch.distributed as dist

    rank = Rank()
    where = ask(rank, "rendezvous", host="127.0.0.1", world=1, limit=20.0)
    with socket.create_connection(("127.0.0.1", where["port"]), 5):
        pass
    with pytest.raises(OSError, match=r"[Rr]efused"):
        socket.create_connection(("127.0.0.2", where["port"]), 5)
    info = {"rank": 0, "world": 1, "device": "cpu", "backend": "gloo", "timeout": 20.0}
    try:
        ask(rank, "join", info=info, host="127.0.0.1", where={**where, "secret": "s3cret"}, limit=20.0)
        seen = dist.TCPStore("127.0.0.1", where["port"], None, False)
        assert seen.num_keys()
        if hasattr(seen, "list_keys"):  # torch 2.5 has none
            assert all(key.startswith("s3cret/") for key in seen.list_keys())
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@linux
def test_the_network_interface_of_an_address():
    assert rendezvous.interface_of("127.0.0.1") == "lo"
    assert rendezvous.interface_of("203.0.113.7") == ""
    mine = socket.gethostbyname(socket.gethostname())
    if not mine.startswith("127."):
        assert rendezvous.interface_of(mine) in [name for _, name in socket.if_nameindex()]


OTHER_CARD = """
import os, sys; sys.path.append(sys.argv[1])
from tests.wan_local.ranks.test_rendezvous import ask, listening
from wan_local.ranks.rank import Rank
info = {"rank": 0, "world": 1, "device": "cpu", "backend": "gloo", "timeout": 20.0}
rank = Rank()
where = ask(rank, "rendezvous", host="", world=1, limit=20.0)
ask(rank, "join", info=info, host=sys.argv[2], where=where, limit=20.0)
rank.leave()
print(*listening(os.getpid()))
"""


@linux
def test_gloo_listens_at_the_address_of_the_rank_whatever_the_name_of_the_machine_stands_for():
    """On many machines the name stands for 127.0.1.1, where no other machine would find the rank."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect(("198.51.100.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network but its own")
        address = way_out.getsockname()[0]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_CARD, str(HERE.parents[2]), address], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [address], done.stderr


def test_machines_that_can_not_reach_each_other_say_what_to_look_at():
    """The text alone: two networks are not at hand."""
    told = group_module.unreachable(RankError("Connect timeout", stage="joining", rank=1, place="Ray node b"), "nccl")
    assert str(told).startswith("rank 1 (Ray node b) failed at joining: Connect timeout; ")
    assert "NCCL_SOCKET_IFNAME" in str(told)
    gloo = group_module.unreachable(RankError("Connect timeout", stage="joining", rank=1), "gloo")
    assert "ray start --node-ip-address" in str(gloo)
