"""Clips longer than those of training in real graphs; the bundled model was trained on 33 frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer
from nano_graph import COND, FIRST, IMAGES, LAST, LOAD, MODEL, POSITIVE, SAMPLER, VAE, Graph, node, single_nodes
from test_comfyui_nodes import made

WINDOWS = {"longer": "windows", "window": 17, "overlap": 8}


def long(**longer: Any) -> Graph:
    graph = single_nodes()
    graph[MODEL]["inputs"]["model_name"] = "nano (bundled)"  # which says how long it was trained
    graph[COND]["inputs"]["length"] = 49
    graph[SAMPLER]["inputs"].update(longer)
    return graph


@pytest.fixture(scope="module")
def found(server: ComfyServer) -> dict[str, np.ndarray]:
    return {way: made(server, long(**{**WINDOWS, "longer": way})) for way in ("plain", "riflex", "windows")}


def test_each_way_makes_another_clip_of_all_frames(found: dict[str, np.ndarray]) -> None:
    assert {len(frames) for frames in found.values()} == {49}
    for way in ("riflex", "windows"):
        assert np.abs(found[way] - found["plain"]).mean() > 1.0


def test_the_whole_node_makes_the_same(server: ComfyServer, found: dict[str, np.ndarray]) -> None:
    graph = long(**WINDOWS)
    inputs = {name: graph[SAMPLER]["inputs"][name] for name in ("seed", "steps", "guidance", "shift", "sampler")}
    size = {name: graph[COND]["inputs"][name] for name in ("width", "height", "length")}
    graph["70"] = node(
        "WanFLF2VLocal", model=[MODEL, 0], clip=[LOAD, 1], vae=[VAE, 0], clip_vision=[LOAD, 2], first_image=[FIRST, 0],
        last_image=[LAST, 0], prompt=graph[POSITIVE]["inputs"]["text"], negative_prompt="", fps=8.0, **inputs, **size,
        **WINDOWS,
    )  # fmt: skip
    graph[IMAGES]["inputs"]["images"] = ["70", 0]
    assert np.abs(made(server, graph) - found["windows"]).max() <= 1.0


def test_a_clip_that_fits_into_a_window_is_made_as_ever_and_that_is_said(server: ComfyServer) -> None:
    run = server.run(long(longer="windows"))
    assert run.status == "success", run.error
    assert any("windows acts on clips of more than 81 frames" in text for text in run.texts(SAMPLER)), run.texts(
        SAMPLER
    )


def test_windows_that_can_not_be_are_one_line(server: ComfyServer) -> None:
    run = server.run(long(longer="windows", window=9, overlap=28))
    assert run.status == "error"
    assert "overlap=28 leaves nothing new in a window of 9 frames; give at most 8" in run.error
