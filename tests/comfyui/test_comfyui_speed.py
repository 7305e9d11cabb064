"""Wan FLF2V Speed in real graphs: before and behind other nodes, on both experts, and what is told of it."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from comfy_server import ComfyServer
from nano_graph import DECODE, MODEL, SAMPLER, VIDEO, Graph, node, single_nodes
from test_comfyui_experts import BOTH, HIGH, LOW, experts
from test_comfyui_nodes import made, psnr

SPEED = "70"
STEPS = 12  # of which 3, 4 ... may be skipped at shift 16


def speed(graph: Graph, preset: str, *, of: str = MODEL, **options: Any) -> Graph:
    """The same with its model through the node."""
    graph[SPEED] = node("WanFLF2VSpeed", model=[of, 0], preset=preset, **options)
    graph[SAMPLER]["inputs"].update(model=[SPEED, 0], steps=STEPS)
    return graph


def plain() -> Graph:
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["steps"] = STEPS
    return graph


@pytest.fixture(scope="module")
def exact(server: ComfyServer) -> np.ndarray:
    return made(server, plain())


def test_a_preset_is_told_on_the_sampler_and_in_the_saved_video(server: ComfyServer, exact: np.ndarray) -> None:
    graph = speed(single_nodes(), "balanced")
    graph[VIDEO] = node("SaveVideo", video=[DECODE, 1], filename_prefix="speed", format="auto", codec="auto")
    run = server.run(graph)
    assert run.status == "success", run.error
    said = "balanced (skip list): 4 of 12 steps skipped, 16 of 24 forwards"
    assert run.texts(SAMPLER)[-1].endswith(said)
    assert any(", 2 skipped, " in text for text in run.texts(SAMPLER))
    (row,) = run.outputs[VIDEO]["images"]
    with av.open(str(server.base / "output" / row["subfolder"] / row["filename"])) as file:
        assert file.metadata["approximations"] == said
        assert "prompt" in file.metadata, "core's own are there beside it"
    fast = made(server, graph)
    assert 30 < psnr(fast, exact) < 100


def test_exact_is_the_graph_without_the_node(server: ComfyServer, exact: np.ndarray) -> None:
    assert np.array_equal(made(server, speed(single_nodes(), "exact")), exact)


def test_it_may_stand_before_a_lora_and_is_not_left_on_the_weights(server: ComfyServer, exact: np.ndarray) -> None:
    graph = speed(single_nodes(), "balanced")
    graph["71"] = node("WanFLF2VLoRA", model=[SPEED, 0], lora_name="nano_lora.safetensors", strength=1.0)
    graph[SAMPLER]["inputs"]["model"] = ["71", 0]
    run = server.run(graph)
    assert run.texts(SAMPLER)[-1].endswith("16 of 24 forwards")
    again = plain()
    again[SAMPLER]["inputs"]["seed"] = 1  # else the host gives what it has
    server.run(again)
    again[SAMPLER]["inputs"]["seed"] = 0
    assert np.array_equal(made(server, again), exact)


def test_both_experts_skip_and_unlike_choices_are_refused(server: ComfyServer) -> None:
    run = server.run(speed(experts(shift=8.0), "balanced", of=BOTH))
    assert run.status == "success", run.error
    assert "steps skipped" in run.texts(SAMPLER)[-1]
    graph = experts()
    graph[SPEED] = node("WanFLF2VSpeed", model=[HIGH, 0], preset="balanced")
    graph[BOTH]["inputs"].update(high_noise=[SPEED, 0], low_noise=[LOW, 0])
    run = server.run(graph)
    assert run.status == "error"
    assert "connect Wan FLF2V Speed behind Wan FLF2V Experts" in run.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"skip": "list", "guidance_reuse": 2}, "skip='list' and guidance_reuse=2 can't go together"),
        ({"skip": "off", "skip_threshold": 0.1}, "skip_threshold=0.1 is for easycache and magcache"),
        ({"nag": 0.5}, "nag=0.5 would do nothing"),
    ],
)
def test_what_can_not_be_is_refused(server: ComfyServer, options: dict[str, Any], said: str) -> None:
    run = server.run(speed(single_nodes(), "balanced", **options))
    assert run.status == "error"
    assert said in run.error


def test_what_does_nothing_is_said_on_the_node(server: ComfyServer) -> None:
    graph = speed(single_nodes(), "balanced", nag=11.0)
    graph[SAMPLER]["inputs"]["steps"] = 4
    run = server.run(graph)
    assert run.status == "success", run.error
    told = run.texts(SAMPLER)[-1]
    assert "skip list finds no step of 4 that may be skipped, and is off" in told
    assert "nag is for guidance 1 and is off at 2" in told


def test_nag_counts_at_guidance_1(server: ComfyServer) -> None:
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["guidance"] = 1.0
    without = made(server, graph)
    with_nag = speed(graph, "exact", nag=11.0)
    with_nag[SAMPLER]["inputs"]["steps"] = 3
    assert not np.array_equal(made(server, with_nag), without)
