"""The shared workflows, each as a graph and as its API twin: run where this machine can, else held to the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK, ComfyServer

NAMES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
RUNS_HERE = ("nano_first_last", "nano_single_nodes")
FILES = ("model_name", "vae_name", "lora_name", "clip_name", "folder", "image")  # names of files on somebody's disk
ONLY_IN_THE_PAGE = ("fixed", "image")  # widgets that only the frontend has
NOTES = ("MarkdownNote",)


def load(name: str, form: str = "") -> dict[str, Any]:
    return json.loads((PACK / "workflows" / form / f"{name}.json").read_text("utf-8"))


def test_every_workflow_has_its_twin_and_its_picture() -> None:
    assert set(RUNS_HERE) < set(NAMES)
    assert sorted(path.stem for path in (PACK / "workflows" / "api").glob("*.json")) == NAMES
    assert sorted(path.stem for path in (PACK / "workflows").glob("*.jpg")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_form_and_the_queue_form_are_the_same_workflow(name: str) -> None:
    graph, queue = load(name), load(name, "api")
    nodes = {str(row["id"]): row for row in graph["nodes"] if row["type"] not in NOTES}
    assert {key: row["type"] for key, row in nodes.items()} == {k: v["class_type"] for k, v in queue.items()}
    links = {link[0]: link for link in graph["links"]}
    used = set()
    for key, row in nodes.items():
        wired = {}
        for place, slot in enumerate(row["inputs"]):
            if slot.get("link") is not None:
                number, source, output, target, at, kind = links[slot["link"]]
                assert (str(target), at, kind) == (key, place, slot["type"])
                assert number in nodes[str(source)]["outputs"][output]["links"]
                wired[slot["name"]] = [str(source), output]
                used.add(number)
        inputs = queue[key]["inputs"]
        assert wired == {field: value for field, value in inputs.items() if isinstance(value, list)}
        constants = [value for value in inputs.values() if not isinstance(value, list)]
        assert [value for value in row["widgets_values"] if value not in ONLY_IN_THE_PAGE] == constants
    assert used == set(links)


@pytest.mark.parametrize("name", NAMES)
def test_a_note_says_which_files_go_where(name: str) -> None:
    (note,) = [row for row in load(name)["nodes"] if row["type"] in NOTES]
    text = note["widgets_values"][0]
    for row in load(name, "api").values():
        for field in FILES:
            value = row["inputs"].get(field)
            if isinstance(value, str) and "bundled" not in value and field != "image":
                assert value in text, f"{value} is not in the note"


@pytest.mark.parametrize("name", NAMES)
def test_the_queue_form_fits_the_schema(server: ComfyServer, name: str) -> None:
    queue, info = load(name, "api"), server.get("/object_info")
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
        source, output = value
        given = info[queue[source]["class_type"]]["output"][output]
        assert given == kind, f"{place} takes {kind} and gets {given}"
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


@pytest.mark.parametrize("name", RUNS_HERE)
def test_what_can_run_here_runs(server: ComfyServer, name: str) -> None:
    queue = load(name, "api")
    for row in queue.values():
        if "steps" in row["inputs"]:
            row["inputs"]["steps"] = 2
    run = server.run(queue)
    assert run.status == "success", run.error
    saved = [file for output in run.outputs.values() for file in output.get("images", [])]
    assert any(file["filename"].endswith(".mp4") for file in saved)


def test_the_server_offers_the_workflows_as_templates(server: ComfyServer) -> None:
    offered = {Path(name).stem for name in server.get("/workflow_templates")["ComfyUI-WanFLF2V"]}
    assert set(NAMES) <= offered
