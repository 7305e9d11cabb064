"""The ``local`` launcher: what it refuses, its limits, and how it stands inside somebody else's program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.wan_local.ranks.groups import HERE, gone, group, spec, wait_until
from wan_local.errors import Cancelled, InputError
from wan_local.ranks import (
    GroupSpec,
    Limits,
    Pool,
    RankError,
    RankGroup,
    RaySettings,
    check_devices,
    cuda_devices,
    process,
    ray_launcher,
    settings,
)

pytestmark = pytest.mark.long

ROOT = HERE.parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="the test sends signals")


@posix
def test_a_frozen_rank_is_found_long_before_the_limit_of_the_call():
    with group("local", world=1, limits={"silence": 2.0}) as ranks:
        ranks.start()
        os.kill(ranks.pids[0], signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(RankError, match="silent for 2 s") as caught:
            ranks.call("nothing", timeout=300)
        assert caught.value.rank == 0
        assert time.monotonic() - began < 8
        assert gone(ranks.pids)


@posix
def test_a_frozen_rank_does_not_hold_up_its_driver_with_a_full_pipe():
    with group("local", world=1) as ranks:
        ranks.start()
        os.kill(ranks.pids[0], signal.SIGSTOP)
        with pytest.raises(RankError) as caught:
            ranks.call("echo", bytes(50_000_000), timeout=1)
        assert caught.value.rank == 0


def test_a_stopped_call_that_never_ends_is_ended():
    """Nobody calls again: the ranks are ended all the same."""
    with group("local", world=1, limits={"abandon": 1.5}) as ranks:
        ranks.start()
        with pytest.raises(Cancelled):
            ranks.call("wait_for_the_last", stop=lambda: True)
        assert ranks.alive
        assert gone(ranks.pids, 8)
        assert not ranks.alive


def test_the_next_run_does_not_wait_for_a_hung_group_for_ever():
    pool = Pool()
    hung = pool.lease("a", lambda: group("local", world=1, limits={"abandon": 1.5}))
    with pytest.raises(Cancelled):
        hung.call("wait_for_the_last", stop=lambda: True)
    fresh = pool.lease("a", lambda: group("local", world=1))
    assert fresh is not hung
    assert gone(hung.pids)
    assert fresh.call_first("total").tolist() == [1.0, 2.0, 3.0]
    pool.close()
    assert gone(fresh.pids)


def test_a_fresh_group_is_tried_once():
    tried = []

    def make():
        tried.append(1)
        return group("local", world=1, fail="still broken")

    pool = Pool()
    for _ in range(2):
        with pytest.raises(RankError, match="still broken"):
            pool.lease("a", make)
    assert len(tried) == 2


def test_a_rank_that_can_not_even_start_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "start.py"
    broken.write_text("raise ImportError('libcuda.so is not there')\n")
    monkeypatch.setattr(process, "START", broken)
    ranks = group("local", world=1)
    with pytest.raises(RankError, match="exit status 1: ImportError: libcuda.so is not there") as caught:
        ranks.start()
    assert caught.value.stage == "starting"
    assert gone(ranks.pids)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"devices": ()}, "at least one"),
        ({"devices": ("gpu0",)}, "cuda:0"),
        ({"launcher": "mpi"}, "local, ray"),
        ({"backend": "mpi"}, "auto, gloo, nccl"),
        ({"backend": "nccl"}, "needs a CUDA GPU"),
        ({"backend": "nccl", "devices": ("cuda:0", "cuda")}, "two ranks on a GPU need gloo"),
        ({"target": "os.system"}, "module:Class"),
    ],
)
def test_impossible_groups_are_refused_with_what_is_possible(change, told):
    settings = {"target": "toy_rank:Toy", "devices": ("cpu", "cpu"), **change}
    with pytest.raises(InputError, match=told):
        GroupSpec(**settings)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), None, True, "60"])
def test_there_is_no_wait_without_an_end(value):
    with pytest.raises(InputError, match="limit call"):
        Limits(call=value)


@pytest.mark.parametrize("address", ["nowhere", "ray://a:1", "a:", ":1", "a:b"])
def test_a_ray_address_is_host_and_port(address):
    with pytest.raises(InputError, match="host:port"):
        RaySettings(address=address)


def test_more_ranks_than_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert cuda_devices(2) == ("cuda:0", "cuda:1")
    check_devices(("cuda:1", "cuda:1", "cpu"))
    with pytest.raises(InputError, match=r"cuda:2 is asked for \(ranks: 3\), but torch sees 2 CUDA GPUs"):
        cuda_devices(3)
    ranks = RankGroup(GroupSpec(target="toy_rank:Toy", devices=("cuda:0", "cuda:5")))
    with pytest.raises(InputError, match="ask for fewer GPUs"):
        ranks.start()
    assert ranks.pids == []
    for count in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="whole number"):
            cuda_devices(count)


def test_the_backend_follows_the_gpus(monkeypatch):
    def chosen(*devices, **more):
        return GroupSpec(target="toy_rank:Toy", devices=devices, **more).chosen_backend

    assert chosen("cuda:0", "cuda:1") == "nccl"
    assert chosen("cuda:0", "cuda:0") == "gloo"
    assert chosen("cpu", "cpu") == "gloo"
    assert chosen("cuda", "cuda", launcher="ray") == "nccl"
    assert chosen("cuda", "cuda", launcher="ray", ray=RaySettings(gpus=0.5)) == "gloo"
    monkeypatch.setattr(settings.platform, "system", lambda: "Windows")
    assert chosen("cuda:0", "cuda:1") == "gloo"
    with pytest.raises(InputError, match="does not exist on Windows; use gloo"):
        chosen("cuda:0", "cuda:1", backend="nccl")


def test_without_ray_and_on_windows_there_is_a_message(monkeypatch):
    monkeypatch.setattr(ray_launcher.importlib.util, "find_spec", lambda name: None)
    ranks = RankGroup(spec("ray"))
    with pytest.raises(InputError, match=r"pip install 'ray>=2.52,<3'"):
        ranks.start()
    monkeypatch.setattr(ray_launcher.platform, "system", lambda: "Windows")
    with pytest.raises(InputError, match="Ray can't be used on Windows; leave its address empty"):
        RankGroup(spec("ray")).start()


def test_a_process_is_ended_only_if_it_is_the_one_meant():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        real = process.Process(pid=child.pid, machine=process.machine(), started=process.started_at(child.pid))
        assert not process.kill(process.Process(pid=child.pid, machine="another boot", started=real.started))
        assert not process.kill(process.Process(pid=child.pid, machine=real.machine, started="12345"))
        assert child.poll() is None
        assert process.kill(real)
        assert child.wait(5) == -signal.SIGKILL
    finally:
        child.kill()


def test_importing_the_ranks_loads_neither_torch_nor_ray():
    code = (
        "import sys; sys.path.append(sys.argv[1]); import wan_local.ranks as r\n"
        "assert not {'torch', 'ray', 'numpy'} & set(sys.modules), 'loaded at import'\n"
        "r.RankGroup(r.GroupSpec(target='a:B', devices=('cpu',)))\n"
        "r.Pool()\n"
        "assert not {'torch', 'ray', 'numpy'} & set(sys.modules), 'loaded by making a group'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


HOST = """
import importlib.util, sys
root, here = sys.argv[1:]
import nodes
assert nodes.WHOSE == "the host"
name = "/somewhere/custom_nodes/" + "ComfyUI-WanFLF2V"  # ComfyUI's module name of a pack is its folder
spec = importlib.util.spec_from_file_location(name, root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules[name] = pack
spec.loader.exec_module(pack)
ranks = importlib.import_module(".wan_local.ranks", name)
make = lambda target, world, **more: ranks.GroupSpec(target=target, devices=("cpu",) * world, threads=1, **more)
with ranks.RankGroup(make("toy_rank:Toy", 2, paths=(here,), kwargs={"weights": "1 2"})) as group:
    group.start()
    assert group.call_first("total").tolist() == [3.0, 6.0]
    assert not any("nodes" in names for names in group.call("modules"))
    assert all("host_folder" not in path for paths in group.call("path") for path in paths)
with ranks.RankGroup(make(".progress:ignore", 1)) as group:  # a target inside the library, by its place in it
    group.start()
assert "wan_local" not in sys.modules
print("main ran once")
"""


def test_inside_a_program_that_imports_the_pack_under_the_name_of_a_folder(tmp_path):
    """As ComfyUI does: another nodes.py comes first, the working directory is the host's, the main module runs once."""
    folder = tmp_path / "host_folder"
    folder.mkdir()
    (folder / "nodes.py").write_text("WHOSE = 'the host'\n")
    (folder / "toy_rank.py").write_text("raise ImportError('a file of the host hides one of ours')\n")
    (folder / "main.py").write_text(HOST)
    done = subprocess.run(
        [sys.executable, "main.py", str(ROOT), str(HERE)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["main ran once", ""]


def test_a_rank_ends_with_its_pipe_while_it_sits_in_a_collective():
    """Whatever closes the driver's end, be it not even its death."""
    with group("local", limits={"abandon": 60}) as ranks:
        ranks.start()
        with pytest.raises(Cancelled):
            ranks.call("wait_for_the_last", stop=lambda: True)
        for child in ranks._launcher._children:
            child.channel.close_writer()
        assert gone(ranks.pids, 2.0)


@posix
def test_a_forked_copy_of_the_driver_does_not_keep_the_ranks_alive(tmp_path):
    """A forked child holds the pipes open after the driver's death; the ranks see that their parent has changed."""
    code = (
        "import os, sys, time; sys.path.append(sys.argv[1])\n"
        "from tests.wan_local.ranks.groups import group\n"
        "g = group('local', world=1); g.start()\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60); os._exit(0)\n"
        "print(child, *g.pids, flush=True); time.sleep(60)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    child, *pids = (int(word) for word in driver.stdout.readline().split())
    try:
        driver.kill()
        driver.wait()
        assert gone(pids, 2.0)
        assert wait_until(lambda: not gone([child]), 0), "the copy was there all the time"
    finally:
        os.kill(child, signal.SIGKILL)
        driver.stdout.close()
