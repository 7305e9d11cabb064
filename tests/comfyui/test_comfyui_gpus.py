"""Several GPUs in a running ComfyUI, tried on CPU ranks: same frames, kept ranks, stop, a lost rank, no orphans."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import LOOK_TIMEOUT, ComfyServer, Run, checkout, inside, interpreter, why_not
from nano_graph import COND, MODEL, SAMPLER, Graph, node, single_nodes
from test_comfyui_nodes import LEVEL, apart, made

MULTI = "60"
LONG_STEPS = {"width": 256, "height": 256, "length": 5}
INSIDE = Path(__file__).with_name("inside_model_on_gpus.py")
CHECKED = [
    node.name
    for node in ast.parse(INSIDE.read_text("utf-8")).body
    if isinstance(node, ast.FunctionDef) and any(getattr(mark, "id", "") == "check" for mark in node.decorator_list)
]
LINUX = pytest.mark.skipif(not Path("/proc").exists(), reason="child processes are looked for in /proc")


def on_gpus(**fields: Any) -> Graph:
    graph = single_nodes()
    settings = {"gpus": 2, "ulysses": 0, "ring": 0, "cfg_parallel": "auto", "fsdp": False, "ray_address": ""}
    graph[MULTI] = node("WanFLF2VMultiGPU", model=[MODEL, 0], **{**settings, **fields})
    graph[SAMPLER]["inputs"]["model"] = [MULTI, 0]
    return graph


def ranks(server: ComfyServer) -> set[int]:
    """Processes of ours below the server."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone since
            continue
        if b"ranks/start.py" in command and parent == server.pid:
            found.add(int(folder.name))
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.fixture(scope="module")
def reference(server: ComfyServer) -> np.ndarray:
    return made(server, single_nodes())


@pytest.mark.parametrize(
    "fields",
    [{}, {"gpus": 4, "cfg_parallel": "off", "ulysses": 2, "ring": 2}, {"gpus": 1}],
    ids=["cfg 2", "ulysses 2 x ring 2", "one GPU"],
)  # fmt: skip
def test_gpus_give_the_frames_of_one(server: ComfyServer, reference: np.ndarray, fields: dict[str, Any]) -> None:
    assert apart(f"{fields} / one GPU", made(server, on_gpus(**fields)), reference) <= LEVEL


def test_weights_that_are_sharded_out_give_the_frames_of_one(server: ComfyServer, reference: np.ndarray) -> None:
    graph = on_gpus(fsdp=True)
    torch_release = server.get("/system_stats")["system"]["pytorch_version"].split(".")
    if [int(part) for part in torch_release[:2]] < [2, 6]:  # FSDP asks CUDA streams of a CPU there
        assert "fsdp on the CPU needs torch 2.6" in server.run(graph).error
    else:
        assert apart("fsdp / one GPU", made(server, graph), reference) <= LEVEL


def test_a_lora_before_and_after_the_node(server: ComfyServer) -> None:
    lora = {"lora_name": "nano_lora.safetensors", "strength": 0.6}
    plain = single_nodes()
    plain["50"] = node("WanFLF2VLoRA", model=[MODEL, 0], **lora)
    plain[SAMPLER]["inputs"]["model"] = ["50", 0]
    expected = made(server, plain)
    before, after = on_gpus(), on_gpus()
    before["50"] = node("WanFLF2VLoRA", model=[MODEL, 0], **lora)
    before[MULTI]["inputs"]["model"] = ["50", 0]
    after["50"] = node("WanFLF2VLoRA", model=[MULTI, 0], **lora)
    after[SAMPLER]["inputs"]["model"] = ["50", 0]
    for graph in (before, after):
        assert apart("LoRA on two GPUs / on one", made(server, graph), expected) <= 3 * LEVEL


@LINUX
def test_ranks_stay_between_runs(server: ComfyServer) -> None:
    made(server, on_gpus())
    pids = ranks(server)
    assert len(pids) == 2
    graph = on_gpus()
    graph[SAMPLER]["inputs"]["seed"] = 5
    began = time.monotonic()
    made(server, graph)
    print(f"a run on ranks that are there: {time.monotonic() - began:.1f} s")
    assert ranks(server) == pids


@LINUX
def test_stop_in_the_midst_of_a_step(server: ComfyServer) -> None:
    graph = on_gpus()
    graph[COND]["inputs"].update(LONG_STEPS)
    graph[SAMPLER]["inputs"].update(steps=200)
    pressed: list[float] = []

    def press(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == SAMPLER and data["value"] > 1 and not pressed:
            pressed.append(run.events[-1][0] + 0.3)
            threading.Timer(0.3, server.interrupt).start()

    run = server.run(graph, press)
    waited = run.events[-1][0] - pressed[0]
    print(f"stop in the midst of a step on two ranks: interrupted after {waited:.2f} s")
    assert run.status == "interrupted"
    assert waited <= 2.5  # the limit is a second; the machine may be busy
    pids = ranks(server)
    made(server, on_gpus(gpus=2))
    assert ranks(server) == pids  # and the ranks are still those


@LINUX
def test_stop_while_ranks_start(server: ComfyServer) -> None:
    graph = on_gpus(gpus=4, cfg_parallel="off")  # other ranks than those that are there
    pressed: list[float] = []

    def press(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "executing" and data.get("node") == SAMPLER and not pressed:
            pressed.append(run.events[-1][0] + 1.0)
            threading.Timer(1.0, server.interrupt).start()

    run = server.run(graph, press)
    waited = run.events[-1][0] - pressed[0]
    print(f"stop while ranks start: {run.status} after {waited:.2f} s")
    assert run.status == "interrupted"
    assert waited <= 2.5


@LINUX
def test_a_lost_rank_is_told_and_the_next_run_works(server: ComfyServer, reference: np.ndarray) -> None:
    graph = on_gpus()
    graph[COND]["inputs"].update(LONG_STEPS)
    graph[SAMPLER]["inputs"].update(steps=200, seed=9)
    killed: list[int] = []

    def kill(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == SAMPLER and data["value"] > 1 and not killed:
            killed.append(max(ranks(server)))
            os.kill(killed[0], signal.SIGKILL)

    run = server.run(graph, kill)
    assert run.status == "error"
    print(run.error)
    assert "SIGKILL" in run.error
    assert "rank 1" in run.error
    assert "step" in run.error
    assert "\n" not in run.error.strip()
    assert apart("after a lost rank / one GPU", made(server, on_gpus(gpus=2)), reference) <= LEVEL


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpus": 3, "ulysses": 3}, "ulysses=3 does not divide the 4 heads"),
        ({"gpus": 4, "ulysses": 2, "ring": 4}, "does not go with gpus=4"),
        ({"gpus": 3, "cfg_parallel": "on"}, "cfg=2 does not go with gpus=3"),
        ({"ray_address": "nonsense"}, "ray address 'nonsense'; use host:port"),
        ({"gpus": 64}, "gpus=64 can't be used: this runs on the CPU"),
    ],
)
def test_what_can_not_be_is_one_line(server: ComfyServer, fields: dict[str, Any], words: str) -> None:
    run = server.run(on_gpus(**fields))
    assert run.status == "error"
    print(run.error)
    assert words in run.error
    assert "\n" not in run.error.strip()


def test_packed_weights_are_not_sharded_out(server: ComfyServer) -> None:
    graph = on_gpus(fsdp=True)
    graph[MODEL]["inputs"]["model_name"] = "packed/nano_fp8.safetensors"
    run = server.run(graph)
    assert run.status == "error"
    assert "holds packed weights (fp8, int8, fp4 or GGUF), which fsdp can't shard" in run.error
    graph = on_gpus()
    graph[MODEL]["inputs"]["model_name"] = "packed/nano_fp8.safetensors"
    alone = single_nodes()
    alone[MODEL]["inputs"]["model_name"] = "packed/nano_fp8.safetensors"
    assert apart("fp8 on two GPUs / on one", made(server, graph), made(server, alone)) <= LEVEL


@LINUX
def test_unload_models_gives_the_gpus_back(server: ComfyServer, reference: np.ndarray) -> None:
    made(server, on_gpus())
    pids = ranks(server)
    assert len(pids) == 2
    server.free(lambda: not alive(pids), unload_models=True)
    assert not alive(pids)
    graph = on_gpus()
    graph[MODEL]["inputs"]["model_name"] = "nano (bundled)"  # runs again
    assert apart("after /free / one GPU", made(server, graph), reference) <= LEVEL


@pytest.fixture
def mortal(server: ComfyServer) -> Iterator[ComfyServer]:
    """The server, started again for other tests once this one has killed it."""
    yield server
    server.stop()
    server.start()


@LINUX
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_comfyui(mortal: ComfyServer, how: int) -> None:
    """Killed in the midst of a step, or told to end."""
    graph = on_gpus()
    graph[COND]["inputs"].update(LONG_STEPS)
    graph[SAMPLER]["inputs"].update(steps=500)
    pids: set[int] = set()
    began: list[float] = []

    def kill(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == SAMPLER and data["value"] > 1 and not began:
            pids.update(ranks(mortal))
            began.append(time.monotonic())
            mortal.kill(how)

    with contextlib.suppress(OSError):  # the server is gone in the midst of its answer, as is meant
        mortal.run(graph, kill)
    assert began, mortal.log()[-2000:]
    assert len(pids) == 2, mortal.log()[-2000:]
    while alive(pids) and time.monotonic() - began[0] < 20:
        time.sleep(0.05)
    print(f"ranks gone {time.monotonic() - began[0]:.2f} s after signal {how}")
    assert not alive(pids)


# -- in ComfyUI's interpreter, without a server ------------------------------------------------------------


@pytest.fixture(scope="session")
def outcomes() -> dict[str, list[str | None]]:
    if reason := why_not():
        pytest.skip(reason)
    return inside(INSIDE)


@pytest.mark.parametrize("name", CHECKED)
def test_inside(outcomes: dict[str, list[str | None]], name: str) -> None:
    failed, _ = outcomes[name]
    assert failed is None, failed


# -- through Ray -------------------------------------------------------------------------------------------


def why_no_ray() -> str | None:
    """Ray has to be where ComfyUI runs and where these tests run, which start the cluster."""
    reason = why_not()
    if reason:
        return reason
    for python in (interpreter(checkout()), sys.executable):
        look = subprocess.run([python, "-c", "import ray"], capture_output=True, check=False, timeout=LOOK_TIMEOUT)  # noqa: S603
        if look.returncode:
            return f"Ray is not installed for {python}; pip install ray"
    return None


@pytest.fixture
def machines() -> Iterator[Any]:
    """A Ray cluster of two nodes with room for one rank each: they stand for two machines."""
    if reason := why_no_ray():
        pytest.skip(reason)
    from tests.wan_local.ranks.groups import Cluster

    cluster = Cluster(cpus=1)
    try:
        cluster.tell("add two")
        yield cluster
    finally:
        cluster.close()


def test_two_machines_one_of_them_lost_in_the_midst_of_a_run(
    machines: Any, server: ComfyServer, reference: np.ndarray
) -> None:
    graph = on_gpus(ray_address=machines.address)
    assert apart("two Ray nodes / one GPU", made(server, graph), reference) <= LEVEL
    graph[COND]["inputs"].update(LONG_STEPS)
    graph[SAMPLER]["inputs"].update(steps=300)
    lost: list[float] = []

    def lose(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == SAMPLER and data["value"] > 1 and not lost:
            machines.tell("lose two")
            lost.append(run.events[-1][0])

    run = server.run(graph, lose)
    print(f"told {run.events[-1][0] - lost[0]:.1f} s after a machine was lost: {run.error.strip()}")
    assert run.status == "error"
    assert "rank" in run.error
    assert "step" in run.error
    assert "\n" not in run.error.strip()
    machines.tell("add three")
    again = made(server, on_gpus(ray_address=machines.address))
    assert apart("after a lost machine / one GPU", again, reference) <= LEVEL
