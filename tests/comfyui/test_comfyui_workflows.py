"""The templates in a running ComfyUI: served where the dialog asks, fit for its schemas, run where this machine can.

What they are as files is tests/contracts/test_templates.py, how they open in the editor tests/browser/.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from comfy_server import PACK, ComfyServer
from nano_graph import node
from PIL import Image
from test_comfyui_nodes import frames

TITLES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
QUEUED = {path.stem: json.loads(path.read_text("utf-8")) for path in (PACK / "workflows" / "api").glob("*.json")}
RUNS_HERE = ("wan_flf2v_nano_model", "wan_flf2v_nano_node_by_node", "wan_flf2v_nano_keyframes", "wan_flf2v_nano_chain",
             "wan_flf2v_nano_loop", "wan_flf2v_nano_faster")  # fmt: skip
FILES = ("model_name", "vae_name", "lora_name", "clip_name", "folder", "image")  # names of files on somebody's disk
SWITCHED = "COMFY_MATCHTYPE_V3"  # the output of a switch has the type of what goes into it
ANY = "*"  # what shows any value takes
NAME = "ComfyUI-WanFLF2V"


@pytest.mark.parametrize("name", QUEUED)
def test_the_queue_form_fits_the_schema(server: ComfyServer, name: str) -> None:
    queue, info = QUEUED[name], server.get("/object_info")
    for key, row in queue.items():
        schema = info[row["class_type"]]
        required, optional = schema["input"].get("required", {}), schema["input"].get("optional", {})
        # Later versions of SaveVideo keep the flat codec of older prompts as a hidden input.
        known = set(required) | set(optional) | {"codec"}
        assert set(row["inputs"]) <= known, f"{key}: {set(row['inputs']) - known}"
        assert set(required) <= set(row["inputs"]), f"{key}: {set(required) - set(row['inputs'])}"
        for field, value in row["inputs"].items():
            check_value(f"{name} {key}.{field}", (required | optional).get(field), value, queue, info)


def check_value(place: str, spec: list[Any] | None, value: Any, queue: dict[str, Any], info: dict[str, Any]) -> None:
    if spec is None:
        return
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(value, list):
        given = given_type(value, queue, info)
        assert kind in (given, SWITCHED, ANY), f"{place} takes {kind} and gets {given}"
    elif isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options.get("options", [])
        if place.rsplit(".", 1)[-1] not in FILES:
            assert value in choices, f"{place}: {value} is not among {choices}"
    elif kind in ("INT", "FLOAT"):
        assert options.get("min", value) <= value <= options.get("max", value), place
        if kind == "INT" and options.get("step", 1) > 1 and options.get("min") is not None:
            assert (value - options["min"]) % options["step"] == 0, place
    elif kind == "STRING":
        assert isinstance(value, str), place


def given_type(link: list[Any], queue: dict[str, Any], info: dict[str, Any]) -> str:
    source, output = link
    kind: str = info[queue[source]["class_type"]]["output"][output]
    if kind != SWITCHED:
        return kind
    on, off = (given_type(queue[source]["inputs"][side], queue, info) for side in ("on_true", "on_false"))
    assert on == off
    return on


@pytest.mark.parametrize("name", RUNS_HERE)
def test_what_can_run_here_runs(server: ComfyServer, name: str) -> None:
    run = server.run(in_short(QUEUED[name]))
    assert run.status == "success", run.error
    saved = [file for output in run.outputs.values() for file in output.get("images", [])]
    assert any(file["filename"].endswith(".mp4") for file in saved)


def in_short(queue: dict[str, Any]) -> dict[str, Any]:
    """The same graph in two steps and five frames, or nine where an image stands in the middle."""
    queue = deepcopy(queue)
    middle = any(row["class_type"] == "WanFLF2VKeyframe" for row in queue.values())
    short = {"steps": 2, "length": 9 if middle else 5, "segment_length": 5, "frame": 4}
    for row in queue.values():
        row["inputs"] |= {name: value for name, value in short.items() if name in row["inputs"]}
    return queue


MAIN, PAIR = "wan_flf2v_first_and_last_frame", "wan_flf2v_high_and_low_noise"


@pytest.mark.parametrize("four_steps", [False, True])
@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        (MAIN, {"Sampler, 50 steps"}, {"Sampler, 4 steps with the LoRA", "LoRA for four steps"}),
        (
            PAIR,
            {"Sampler, 40 steps"},
            {"Sampler, 4 steps with the LoRAs", "Four steps, high noise", "Four steps, low noise"},
        ),
    ],
)
def test_the_switch_runs_one_sampler(
    server: ComfyServer, name: str, slow: set[str], fast: set[str], four_steps: bool
) -> None:
    """Both graphs on small models: the LoRAs and their sampler run with the switch on, the other with it off."""
    queue = on_small_models(in_short(QUEUED[name]), LEVELS)
    for row in queue.values():
        if row["class_type"] == "ComfySwitchNode":
            row["inputs"]["switch"] = four_steps
    titles = {key: row["_meta"]["title"] for key, row in queue.items() if "_meta" in row}
    run = server.run(queue)
    assert run.status == "success", run.error
    ran = {data["node"] for data in run.of("executed")} | {data["node"] for data in run.of("executing")}
    assert {titles[key] for key in ran if key in titles} & (slow | fast) == (fast if four_steps else slow)


LEVELS = {"High noise": "nano_high_noise.safetensors", "Low noise": "nano_low_noise.safetensors"}
PAIR_LEVELS = {"High noise": "nano high noise (bundled)", "Low noise": "nano low noise (bundled)"}
ENCODERS = {"CLIPLoader": 1, "CLIPVisionLoader": 2}  # and the output of our loader that gives the same
SMALL = {
    "WanFLF2VLoadVAE": {"vae_name": "nano (bundled)"},
    "WanFLF2VLoRA": {"lora_name": "nano_lora.safetensors"},
    "WanFLF2VConditioning": {"width": 64, "height": 64},
    "WanFLF2VLocal": {"width": 64, "height": 64},
    "WanFLF2VChain": {"width": 64, "height": 64},
}
IMAGES = {"first.png": "nano_first.png", "middle.png": "nano_middle.png", "last.png": "nano_last.png"}


def on_small_models(queue: dict[str, Any], levels: dict[str, str]) -> dict[str, Any]:
    """The same graph with other names in its loaders: the bundled model's for a title that ``levels`` does not name."""
    for row in queue.values():
        row["inputs"] |= SMALL.get(row["class_type"], {})
        if row["class_type"] == "WanFLF2VLoadModel":
            row["inputs"]["model_name"] = levels.get(row.get("_meta", {}).get("title"), "nano (bundled)")
        if row["class_type"] == "LoadImage":
            row["inputs"]["image"] = IMAGES[row["inputs"]["image"]]
    # The bundled text and image encoders come from its folder.
    load = {"folder": "nano (bundled)", "weight_dtype": "default", "attention": "auto"}
    queue["load"] = {"class_type": "WanFLF2VLoadPipeline", "inputs": load}
    encoders = {key: ENCODERS[row["class_type"]] for key, row in queue.items() if row["class_type"] in ENCODERS}
    for row in queue.values():
        for field, value in row["inputs"].items():
            if isinstance(value, list) and value[0] in encoders:
                row["inputs"][field] = ["load", encoders[value[0]]]
    return {key: row for key, row in queue.items() if key not in encoders}


def of_kind(queue: dict[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    """The one node of a kind, and its inputs."""
    ((key, row),) = [(key, row) for key, row in queue.items() if row["class_type"] == kind]
    return key, row["inputs"]


def test_keyframes_of_the_pair_run_with_a_strength_for_each(server: ComfyServer) -> None:
    """The image in the middle is met better at full strength of both than where it does not count."""

    def middle(high: float, low: float) -> float:
        queue = on_small_models(deepcopy(QUEUED["wan_flf2v_high_and_low_keyframes"]), PAIR_LEVELS)
        keyframe, local = of_kind(queue, "WanFLF2VKeyframe")[1], of_kind(queue, "WanFLF2VLocal")
        assert (keyframe["strength"], keyframe["low_noise_strength"]) == (0.7, 0.2)
        keyframe.update(frame=8, strength=high, low_noise_strength=low)
        local[1].update(length=17, steps=12)
        queue["one"] = node("ImageFromBatch", image=[local[0], 0], batch_index=8, length=1)
        queue["shown"] = node("SaveImage", images=["one", 0], filename_prefix="middle")
        run = server.run(queue)
        assert run.status == "success", run.error
        assert any(file["filename"].endswith(".mp4") for output in run.outputs.values()
                   for file in output.get("images", []))  # fmt: skip
        given = np.asarray(Image.open(PACK / "demo" / "nano_middle.png").convert("RGB").resize((64, 64)), float)
        return float(np.abs(frames(server, run, "shown")[0] - given).mean())

    full, usual, none = middle(1.0, 1.0), middle(0.7, 0.2), middle(0.0, 0.0)
    print(f"difference from the image in the middle: {full:.1f} full, {usual:.1f} as saved, {none:.1f} without")
    assert full < none


def test_the_chain_of_the_pair_takes_frames_over(server: ComfyServer) -> None:
    """13 + 13 frames, five of them shared; a prompt for each clip."""
    queue = on_small_models(deepcopy(QUEUED["wan_flf2v_high_and_low_chain"]), PAIR_LEVELS)
    chain, inputs = of_kind(queue, "WanFLF2VChain")
    inputs.update(segment_length=13, steps=2)
    run = server.run(queue)
    assert run.status == "success", run.error
    assert any(text.startswith("clip 2/2: sampling") for text in run.texts(chain))
    report = "".join(run.outputs[of_kind(queue, "PreviewAny")[0]]["text"]).splitlines()
    assert report[0].startswith("2 clips: 21 frames of 64x64")
    assert report[1].startswith("join at frame 13: jump x")


def test_the_server_offers_the_templates(server: ComfyServer) -> None:
    assert sorted(server.get("/workflow_templates")[NAME]) == TITLES


@pytest.mark.parametrize("title", TITLES)
def test_the_dialog_gets_each_template_and_its_thumbnail(server: ComfyServer, title: str) -> None:
    for ending in (".json", ".jpg"):
        given = server.get_bytes(f"/api/workflow_templates/{NAME}/{quote(title)}{ending}")
        assert given == (PACK / "workflows" / f"{title}{ending}").read_bytes()


def test_the_server_offers_the_blueprint_and_knows_its_nodes(server: ComfyServer) -> None:
    offered = {key: row for key, row in server.get("/global_subgraphs").items() if NAME in row["info"]["node_pack"]}
    (path,) = (PACK / "subgraphs").glob("*.json")
    ((key, row),) = offered.items()
    assert row["name"] == Path(path).stem
    given = json.loads(server.get(f"/global_subgraphs/{key}")["data"])
    assert given == json.loads(path.read_text("utf-8"))
    kinds = {node["type"] for graph in given["definitions"]["subgraphs"] for node in graph["nodes"]}
    assert kinds <= server.get("/object_info").keys()
