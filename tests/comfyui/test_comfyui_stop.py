"""Stop, pressed while each long thing runs: the queue is free within a step or a second.

While a video is written: inside_video.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from comfy_server import ComfyServer, Run
from nano_graph import COND, DECODE, SAMPLER, Graph, node, single_nodes

SECOND = 1.0
BUSY = 1.0  # this machine may be doing other things, and the message travels
INTO_THE_STEP = 0.3  # seconds after a step began: at its very start stop would be easy


def encode() -> tuple[Graph, str]:
    graph = single_nodes()
    graph[COND]["inputs"].update(width=192, height=192, length=65)
    return graph, COND


def sample() -> tuple[Graph, str]:
    graph = single_nodes()
    graph[COND]["inputs"].update(width=128, height=128)
    graph[SAMPLER]["inputs"].update(steps=300)
    return graph, SAMPLER


def decode(side: int, tiling: str) -> tuple[Graph, str]:
    graph = single_nodes()
    graph["70"] = node("EmptyHunyuanLatentVideo", width=side, height=side, length=65, batch_size=1)
    graph[DECODE]["inputs"].update(latent=["70", 0], tiling=tiling)
    return graph, DECODE


STAGES: dict[str, Callable[[], tuple[Graph, str]]] = {
    "encoding the images": encode,
    "sampling": sample,
    "decoding": lambda: decode(192, "off"),
    "decoding in tiles": lambda: decode(320, "256"),
}


def stopped(server: ComfyServer, graph: Graph, key: str, after: int = 2) -> tuple[Run, float, float]:
    """Press stop at the ``after``-th sign of progress of node ``key``: the run, seconds until it ended, a step."""
    times: list[float] = []
    pressed: list[float] = []

    def press(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == key and 0 < data["value"] < data["max"]:
            times.append(run.events[-1][0])
            if len(times) == after:
                pressed.append(run.events[-1][0] + INTO_THE_STEP)
                threading.Timer(INTO_THE_STEP, server.interrupt).start()

    run = server.run(graph, press)
    assert pressed, f"no progress to stop at: {run.status} {run.error}"
    step = times[-1] - times[-2]
    return run, run.events[-1][0] - pressed[0], step


@pytest.mark.parametrize("stage", STAGES)
def test_stop_is_honoured_and_the_next_run_is_sound(server: ComfyServer, stage: str) -> None:
    graph, key = STAGES[stage]()
    run, waited, step = stopped(server, graph, key)
    print(f"stop in the midst of {stage}: a step takes {step:.2f} s, interrupted {waited:.2f} s after stop")
    assert run.status == "interrupted"
    assert run.of("execution_interrupted")[0]["node_id"] == key
    assert waited <= SECOND + BUSY
    assert run.texts(key)[-1] == "stopped"
    graph = single_nodes()
    graph[SAMPLER]["inputs"].update(steps=1, seed=time.monotonic_ns() % 2**32)
    after = server.run(graph)
    assert after.status == "success", after.error
