"""Keyframes in real graphs: in a row, into the two nodes that take them, with ends that are absent, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer
from nano_graph import COND, FIRST, IMAGES, LAST, LOAD, POSITIVE, SAMPLER, Graph, node, single_nodes
from test_comfyui_experts import experts
from test_comfyui_nodes import LEVEL, made

ONE, TWO = "70", "71"


def keyframes(graph: Graph, *rows: dict[str, Any], into: str = COND) -> Graph:
    """Some in a row, each with the first image unless it says another."""
    before: dict[str, Any] = {}
    for key, row in zip((ONE, TWO), rows, strict=False):
        values = {"image": [FIRST, 0], "strength": 1.0, "low_noise_strength": -1.0, **row}
        graph[key] = node("WanFLF2VKeyframe", **values, **before)
        before = {"keyframes": [key, 0]}
    graph[into]["inputs"].update(before)
    return graph


def without(graph: Graph, *names: str) -> Graph:
    for name in names:
        del graph[COND]["inputs"][name]
    return graph


def whole_node(graph: Graph) -> Graph:
    """The same out of the one node."""
    names = ("first_image", "last_image", "clip_vision", "vae", "width", "height", "length", "fit", "keyframes",
             "motion")  # fmt: skip
    inputs = {name: graph[COND]["inputs"][name] for name in names if name in graph[COND]["inputs"]}
    sampling = {
        name: graph[SAMPLER]["inputs"][name] for name in ("model", "seed", "steps", "guidance", "shift", "sampler")
    }
    prompt = graph[POSITIVE]["inputs"]["text"]
    graph["72"] = node(
        "WanFLF2VLocal", clip=[LOAD, 1], prompt=prompt, negative_prompt="", fps=8.0, **inputs, **sampling
    )
    graph[IMAGES]["inputs"]["images"] = ["72", 0]
    return graph


def test_the_ends_are_keyframes_too(server: ComfyServer) -> None:
    row = ({"frame": -1, "image": [LAST, 0]}, {"frame": 0})
    found = made(server, keyframes(without(single_nodes(), "first_image", "last_image"), *row))
    assert np.array_equal(found, made(server, single_nodes()))


def test_a_middle_image_and_a_missing_end_in_both_nodes(server: ComfyServer) -> None:
    def graph() -> Graph:
        return keyframes(without(single_nodes(), "first_image"), {"frame": 3, "image": [LAST, 0], "strength": 0.7})

    run = server.run(graph())
    assert run.status == "success", run.error
    assert any("keyframe 1 at frame 3 is moved to frame 4" in text for text in run.texts(COND))
    single = made(server, graph())
    assert np.abs(single - made(server, single_nodes())).max() > 5
    assert np.abs(single - made(server, whole_node(graph()))).max() <= LEVEL


def test_a_middle_image_alone_is_seen_by_no_image_encoder(server: ComfyServer) -> None:
    """Nor does the node ask for one."""
    graph = keyframes(without(single_nodes(), "first_image", "last_image", "clip_vision"), {"frame": 4})
    assert np.abs(made(server, graph) - made(server, whole_node(graph))).max() <= LEVEL


def test_a_batch_is_a_piece_of_the_clip(server: ComfyServer) -> None:
    graph = without(single_nodes(), "first_image")
    graph["73"] = node("RepeatImageBatch", image=[FIRST, 0], amount=5)
    made(server, keyframes(graph, {"frame": 0, "image": ["73", 0]}))
    graph["73"]["inputs"]["amount"] = 6
    run = server.run(graph)
    assert "keyframe 1 has 6 images; give 1, or a piece of a clip of 4n+1 frames: 5 or 9" in run.error


def test_a_last_image_alone_is_the_same_on_several_gpus(server: ComfyServer) -> None:
    graph = without(single_nodes(), "first_image")
    one = made(server, graph)
    graph["74"] = node(
        "WanFLF2VMultiGPU", model=graph[SAMPLER]["inputs"]["model"], gpus=2, ulysses=0, ring=0, cfg_parallel="off",
        fsdp=False, ray_address="",
    )  # fmt: skip
    graph[SAMPLER]["inputs"]["model"] = ["74", 0]
    assert np.abs(made(server, graph) - one).max() <= LEVEL


def test_each_expert_has_its_own_strength(server: ComfyServer) -> None:
    def strength(high: float, low: float) -> np.ndarray:
        return made(server, keyframes(experts(), {"frame": 4, "strength": high, "low_noise_strength": low}))

    both = strength(1.0, -1.0)
    assert np.array_equal(strength(1.0, 1.0), both)
    assert not np.array_equal(strength(1.0, 0.0), both)
    assert np.array_equal(strength(0.0, 0.0), made(server, experts()))


REFUSED = [
    ([{"frame": 9}], "keyframe 1 is at frame 9, outside a clip of 9 frames; use 0 to 8, or -9 to -1 from the end"),
    ([{"frame": 8}], "two images stand at frame 8: last_image and keyframe 1; leave one out"),
    ([{"frame": 4}, {"frame": 0}], "4 images are given and length=9 has room for 3, one every 4 frames"),
]


@pytest.mark.parametrize(("rows", "message"), REFUSED)
def test_what_has_no_place_is_one_line(server: ComfyServer, rows: list[dict[str, Any]], message: str) -> None:
    for graph in (keyframes(single_nodes(), *rows), whole_node(keyframes(single_nodes(), *rows))):
        run = server.run(graph)
        assert run.status == "error"
        assert message in run.error


def test_keyframes_a_frame_apart_are_both_moved_or_one_is_refused(server: ComfyServer) -> None:
    """Frames 5 and 6 lie nearest to 4 and 8, frames 4 and 5 both to 4."""

    def graph(one: int, two: int) -> Graph:
        graph = single_nodes()
        graph[COND]["inputs"]["length"] = 17
        return keyframes(graph, {"frame": one}, {"frame": two, "image": [LAST, 0]})

    run = server.run(graph(5, 6))
    assert run.status == "success", run.error
    shown = "\n".join(run.texts(COND))
    assert "keyframe 1 at frame 5 is moved to frame 4: images stand at every 4th frame" in shown
    assert "keyframe 2 at frame 6 is moved to frame 8: images stand at every 4th frame" in shown
    for refused in (graph(4, 5), whole_node(graph(4, 5))):
        run = server.run(refused)
        assert run.status == "error"
        (line,) = run.error.splitlines()
        assert line.startswith("two images stand at frame 4 (asked for: 4 and 5): keyframe 1 and keyframe 2; leave one")


def test_no_image_at_all_is_one_line(server: ComfyServer) -> None:
    run = server.run(without(single_nodes(), "first_image", "last_image"))
    assert "no image is given; give a first image, a last image or keyframes" in run.error


def test_a_strength_outside_is_refused_before_the_run(server: ComfyServer) -> None:
    status, answer = server.queue(keyframes(single_nodes(), {"frame": 4, "strength": 1.2}))
    assert status == 400
    (error,) = answer["node_errors"][ONE]["errors"]
    assert error["details"] == "Value 1.2 bigger than max of 1.0" or "bigger than max" in error["message"]


def test_motion_changes_the_clip_alike_in_both_nodes_and_is_off_at_1(server: ComfyServer) -> None:
    def graph(motion: float) -> Graph:
        graph = single_nodes()
        graph[COND]["inputs"]["motion"] = motion
        return graph

    off, on = made(server, graph(1.0)), made(server, graph(1.5))
    assert np.array_equal(off, made(server, single_nodes()))
    assert np.abs(on - off).max() > 5
    assert np.abs(on - made(server, whole_node(graph(1.5)))).max() <= LEVEL
