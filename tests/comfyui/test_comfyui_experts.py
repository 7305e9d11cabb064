"""The bundled pair of Wan2.2's experts in real graphs: one at a time, with LoRAs before and behind, from folders, on
several GPUs, and what is no pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nano_pair_files
import numpy as np
import pytest
from comfy_server import PACK, ComfyServer
from nano_graph import COND, DECODE, IMAGES, LOAD, MODEL, POSITIVE, SAMPLER, Graph, node, single_nodes
from PIL import Image
from test_comfyui_nodes import made, psnr

HIGH, LOW, BOTH = "60", "61", "62"
NAMES = {level: f"nano {level} noise (bundled)" for level in ("high", "low")}
TWO_OF_ONE = {"high": "expert.safetensors", "low": "nano_high_noise.safetensors"}  # files of the same weights
HIGH_LORA, LOW_LORA = nano_pair_files.LORAS.values()
ENDS_PSNR = 20.0  # dB
SAMPLING_INPUTS = ("seed", "steps", "guidance", "shift", "sampler")


def experts(boundary: float = 0.9, high: str = "high", low: str = "low", **sampling: Any) -> Graph:
    """The graph of single nodes with a pair in the place of its model, and no image encoder."""
    graph = single_nodes()
    del graph[MODEL], graph[COND]["inputs"]["clip_vision"]
    for key, name in ((HIGH, high), (LOW, low)):
        file = NAMES.get(name, name)
        graph[key] = node("WanFLF2VLoadModel", model_name=file, weight_dtype="default", attention="auto")
    graph[BOTH] = node(
        "WanFLF2VExperts", high_noise=[HIGH, 0], low_noise=[LOW, 0], boundary=boundary, low_noise_guidance=0.0
    )
    graph[SAMPLER]["inputs"].update(model=[BOTH, 0], **sampling)
    return graph


def alone(name: str) -> Graph:
    graph = experts()
    graph[SAMPLER]["inputs"]["model"] = [HIGH if name == "high" else LOW, 0]
    return graph


def with_lora(graph: Graph, key: str, name: str, behind: str) -> list[Any]:
    """The wire of a model with a LoRA."""
    graph[key] = node("WanFLF2VLoRA", model=[behind, 0], lora_name=name, strength=1.0)
    return [key, 0]


@pytest.fixture(scope="module", autouse=True)
def files(models: Path) -> None:
    nano_pair_files.write_folders(models)
    nano_pair_files.write_loras(models)


@pytest.fixture(scope="module")
def both(server: ComfyServer) -> np.ndarray:
    return made(server, experts())


def test_the_boundary_decides_who_works(server: ComfyServer, both: np.ndarray) -> None:
    """With UniPC, whose first timestep is 999, boundary 1 is the low-noise expert alone."""
    high, low = made(server, alone("high")), made(server, alone("low"))
    assert np.array_equal(made(server, experts(boundary=0.0)), high)
    assert np.array_equal(made(server, experts(boundary=1.0)), low)
    assert not np.array_equal(both, high)
    assert not np.array_equal(both, low)


def test_the_low_noise_expert_may_have_its_own_guidance(server: ComfyServer, both: np.ndarray) -> None:
    graph = experts()
    graph[BOTH]["inputs"]["low_noise_guidance"] = 2.0  # the sampler's own
    assert np.array_equal(made(server, graph), both)
    graph[BOTH]["inputs"]["low_noise_guidance"] = 1.0
    assert not np.array_equal(made(server, graph), both)


def test_a_lora_behind_the_pair_is_one_on_each(server: ComfyServer, both: np.ndarray) -> None:
    behind = experts()
    behind[SAMPLER]["inputs"]["model"] = with_lora(behind, "63", LOW_LORA, BOTH)
    before = experts()
    high, low = (with_lora(before, f"6{key}", LOW_LORA, expert) for key, expert in ((3, HIGH), (4, LOW)))
    before[BOTH]["inputs"].update(high_noise=high, low_noise=low)
    found = made(server, behind)
    assert np.array_equal(found, made(server, before))
    assert not np.array_equal(found, both)
    before[BOTH]["inputs"]["high_noise"] = [HIGH, 0]
    assert not np.array_equal(made(server, before), found)


def test_each_expert_has_a_lora_of_its_own(server: ComfyServer, both: np.ndarray) -> None:
    """With boundary 0 or 1 the other one's LoRA says nothing."""
    graph, found = experts(), {}
    high, low = with_lora(graph, "63", HIGH_LORA, HIGH), with_lora(graph, "64", LOW_LORA, LOW)
    for boundary in (0.0, 0.9, 1.0):
        graph[BOTH]["inputs"].update(high_noise=high, low_noise=low, boundary=boundary)
        found[boundary] = made(server, graph)
    for boundary, model in ((0.0, high), (1.0, low)):
        graph[SAMPLER]["inputs"]["model"] = model
        assert np.array_equal(made(server, graph), found[boundary])
    assert not np.array_equal(found[0.9], both)


def test_a_lora_on_the_other_expert_is_said(server: ComfyServer) -> None:
    graph = experts()
    graph[BOTH]["inputs"]["low_noise"] = with_lora(graph, "63", HIGH_LORA, LOW)
    run = server.run(graph)
    assert run.status == "success", run.error
    assert "its name says high noise, and it is put on low" in server.log()


@pytest.mark.parametrize("folder", [nano_pair_files.OFFICIAL_FOLDER, nano_pair_files.DIFFUSERS_FOLDER])
def test_a_folder_holds_the_pair(server: ComfyServer, both: np.ndarray, folder: str) -> None:
    """All of it comes from there: experts, text encoder and VAE."""
    graph = experts()
    for key in (HIGH, LOW, BOTH):
        del graph[key]
    graph[LOAD]["inputs"]["folder"] = folder
    graph[SAMPLER]["inputs"]["model"] = [LOAD, 0]
    for key in (COND, DECODE):
        graph[key]["inputs"]["vae"] = [LOAD, 3]
    assert np.array_equal(made(server, graph), both)


def test_the_whole_node_needs_no_image_encoder_for_it(server: ComfyServer, both: np.ndarray) -> None:
    graph = experts()
    inputs = {name: graph[COND]["inputs"][name] for name in ("first_image", "last_image", "width", "height", "length")}
    sampling = {name: value for name, value in graph[SAMPLER]["inputs"].items() if name in SAMPLING_INPUTS}
    graph["70"] = node(
        "WanFLF2VLocal", model=[BOTH, 0], clip=[LOAD, 1], vae=graph[COND]["inputs"]["vae"], fps=8.0, negative_prompt="",
        prompt=graph[POSITIVE]["inputs"]["text"], **inputs, **sampling,
    )  # fmt: skip
    graph[IMAGES]["inputs"]["images"] = ["70", 0]
    assert np.abs(made(server, graph) - both).max() <= 1.0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"low": "nano (bundled)"}, "low_noise holds a model that has an image branch"),
        ({"low": "high"}, "high_noise and low_noise hold the same weights"),
        (
            {"high": "expert.safetensors", "low": "nano_high_noise.safetensors"},
            "high_noise and low_noise hold the same weights",
        ),
    ],
)
def test_what_is_no_pair_is_one_line(server: ComfyServer, files: dict[str, str], message: str) -> None:
    run = server.run(experts(**files))
    assert run.status == "error"
    assert message in run.error


def test_the_pair_on_several_gpus_gives_the_frames_of_one(server: ComfyServer, both: np.ndarray) -> None:
    graph = experts()
    graph["63"] = node(
        "WanFLF2VMultiGPU", model=[BOTH, 0], gpus=2, ulysses=0, ring=0, cfg_parallel="off", fsdp=False, ray_address=""
    )
    graph[SAMPLER]["inputs"]["model"] = ["63", 0]
    assert np.abs(made(server, graph) - both).max() <= 1.0


def test_a_pair_in_a_pair_is_refused(server: ComfyServer) -> None:
    graph = experts()
    graph["63"] = node(
        "WanFLF2VExperts", high_noise=[BOTH, 0], low_noise=[LOW, 0], boundary=0.9, low_noise_guidance=0.0
    )
    graph[SAMPLER]["inputs"]["model"] = ["63", 0]
    run = server.run(graph)
    assert "high_noise holds <two experts" in run.error


def test_the_bundled_pair_makes_a_clip_between_the_two_images(server: ComfyServer) -> None:
    """Both files are listed beside the bundled pipeline, and its VAE and text encoder go with them."""
    frames = made(server, experts(steps=12, shift=5.0))
    for name, frame in (("nano_first.png", frames[0]), ("nano_last.png", frames[-1])):
        image = np.asarray(Image.open(PACK / "demo" / name).convert("RGB").resize(frame.shape[1::-1]), dtype=float)
        print(f"{name}: {psnr(frame, image):.1f} dB")
        assert psnr(frame, image) >= ENDS_PSNR


def test_names_that_say_the_pair_is_swapped_are_said(server: ComfyServer) -> None:
    run = server.run(experts(high="low", low="high"))
    assert run.status == "success", run.error
    assert "are swapped" in server.log()
