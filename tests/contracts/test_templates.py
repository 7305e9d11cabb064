"""The templates as files: what the host asks of a pack's folder, and what a person needs to find in each graph."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "workflows"
TITLES = sorted(path.stem for path in FOLDER.glob("*.json"))
MAIN = "Wan FLF2V first and last frame"
BLUEPRINT = next((ROOT / "subgraphs").glob("*.json"))
NOTE = "MarkdownNote"
ASLEEP = (2, 4)  # modes of a node that is muted or bypassed: the page leaves it out of the queue
TITLE_BAR, ROOM = 30, 60  # units of the graph; Nodes 2.0 draws nodes higher than they are saved
SEARCHED = 30  # characters; the editor's search finds no word that begins behind them
IMAGE_WIDGET = "image"  # what the page saves behind the name of an image, for its upload button
# Which folder below models/ a loader looks into.
LOADS = {
    "CLIPLoader": "text_encoders", "CLIPVisionLoader": "clip_vision", "WanFLF2VLoadModel": "diffusion_models",
    "WanFLF2VLoadVAE": "vae", "WanFLF2VLoRA": "loras",
}  # fmt: skip
PUBLISHED = re.compile(
    r"https://huggingface\.co/(Comfy-Org/Wan_2\.1_ComfyUI_repackaged|Comfy-Org/Wan_2\.2_ComfyUI_Repackaged|Kijai/WanVideo_comfy)/resolve/main/"
)
NODE_SCHEMAS = json.loads((ROOT / "tests" / "comfyui" / "node_schemas.json").read_text("utf-8"))


def graph(title: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{title}.json").read_text("utf-8"))


def twin(title: str) -> Path:
    """The same graph for the API queue, under a name without spaces."""
    return FOLDER / "api" / f"{re.sub(r'[^a-z0-9]+', '_', title.lower())}.json"


def queue(title: str) -> dict[str, Any]:
    return json.loads(twin(title).read_text("utf-8"))


def makers(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in nodes if row["type"] != NOTE]


def blueprint() -> dict[str, Any]:
    (definition,) = json.loads(BLUEPRINT.read_text("utf-8"))["definitions"]["subgraphs"]
    return definition


def graphs() -> list[tuple[str, dict[str, Any]]]:
    return [*((title, graph(title)) for title in TITLES), (BLUEPRINT.stem, blueprint())]


def test_the_host_finds_one_folder_of_templates() -> None:
    """ComfyUI looks into these five in this order, lists what all of them hold and serves the first alone."""
    looked_into = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [name for name in looked_into if (ROOT / name).exists()] == ["workflows"]


def test_every_template_has_its_thumbnail_and_its_twin() -> None:
    assert MAIN in TITLES
    assert sorted(path.stem for path in FOLDER.glob("*.jpg")) == TITLES
    assert sorted(path.name for path in (FOLDER / "api").iterdir()) == sorted(twin(title).name for title in TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_the_title_reads_well(title: str) -> None:
    """The dialog shows the file's name, and asks for the file under it, unescaped."""
    assert re.fullmatch(r"Wan FLF2V( [A-Za-z0-9]+)+", title)
    assert len(title) <= 32, "cut short in the dialog"


def test_thumbnails_are_small_squares_that_differ() -> None:
    seen = {}
    for title in TITLES:
        path = FOLDER / f"{title}.jpg"
        assert path.stat().st_size < 64 * 1024, title
        with Image.open(path) as picture:
            assert picture.width == picture.height >= 384, title
            seen[title] = np.asarray(picture.convert("RGB").resize((16, 16)), float)
    for one, other in combinations(TITLES, 2):
        assert np.abs(seen[one] - seen[other]).mean() > 16, f"{one} looks like {other}"


@pytest.mark.parametrize("title", TITLES)
def test_the_graph_form_and_the_queue_form_are_the_same_workflow(title: str) -> None:
    shown, queued = graph(title), queue(title)
    nodes = {str(row["id"]): row for row in makers(shown["nodes"])}
    awake = {key: row["type"] for key, row in nodes.items() if row["mode"] not in ASLEEP}
    assert awake == {key: row["class_type"] for key, row in queued.items()}
    links = {link[0]: link for link in shown["links"]}
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
        if key in awake:
            inputs = queued[key]["inputs"]
            assert wired == {name: value for name, value in inputs.items() if isinstance(value, list)}
            constants = [value for value in inputs.values() if not isinstance(value, list)]
            assert [value for value in row["widgets_values"] if value not in ("fixed", IMAGE_WIDGET)] == constants
    assert used == set(links)


@pytest.mark.parametrize(("title", "shown"), graphs(), ids=[*TITLES, BLUEPRINT.stem])
def test_saved_widgets_are_those_of_the_node(title: str, shown: dict[str, Any]) -> None:
    """By position: one entry too many or too few gives every widget behind it the value of another."""
    for row in makers(shown["nodes"]):
        if row["type"] in NODE_SCHEMAS:
            names = []
            for name, spec in NODE_SCHEMAS[row["type"]]["inputs"].items():
                if spec["type"] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                    names += [name, *["its control"] * bool(spec.get("control_after_generate"))]
            assert len(row["widgets_values"]) == len(names), f"{row['type']}: {names}"


@pytest.mark.parametrize("title", TITLES)
def test_a_note_says_which_files_go_where(title: str) -> None:
    (note,) = [row for row in graph(title)["nodes"] if row["type"] == NOTE]
    text = note["widgets_values"][0]
    assert text.startswith("## ")
    assert (note["color"], note["bgcolor"]) == ("#222", "#000"), "links are hard to read on the usual brown"
    assert "`" not in text, "Nodes 2.0 draws code blue on blue"
    for row in makers(graph(title)["nodes"]):
        for model in row["properties"].get("models", []):
            assert f"| [{model['name']}]({model['url']}) | models/{model['directory']} |" in text


def test_a_small_card_gets_the_file_that_is_said_to_suit_it() -> None:
    """The first page says fp8 up to 16 GB; the file of twice its size takes 33 GB of host memory there."""
    (loader,) = [row for row in graph("Wan FLF2V on a small card")["nodes"] if row["type"] == "WanFLF2VLoadModel"]
    file = loader["widgets_values"][0]
    assert file == "wan2.1_flf2v_720p_14B_fp8_e4m3fn.safetensors"
    for page in ("README.md", "README.zh.md"):
        assert f"`{file}`" in (ROOT / page).read_text("utf-8")


@pytest.mark.parametrize(("title", "shown"), graphs(), ids=[*TITLES, BLUEPRINT.stem])
def test_nodes_tell_their_pack_and_where_their_files_are_published(title: str, shown: dict[str, Any]) -> None:
    """What the editor's "missing nodes" and "missing models" go by."""
    project = dict(re.findall(r'^(name|version) = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    for row in makers(shown["nodes"]):
        properties, ours = row["properties"], row["type"].startswith("WanFLF2V")
        assert properties["cnr_id"] == (project["name"] if ours else "comfy-core")
        version = [int(part) for part in properties["ver"].split(".")]
        assert version <= [int(part) for part in (project["version"] if ours else "0.8.0").split(".")]
        files = [value for value in row["widgets_values"] if str(value).endswith(".safetensors")]
        assert [model["name"] for model in properties.get("models", [])] == files
        for model in properties.get("models", []):
            assert PUBLISHED.match(model["url"])
            assert model["url"].endswith("/" + model["name"])
            assert model["directory"] == LOADS[row["type"]]


Rect = tuple[float, float, float, float]


def rect(row: dict[str, Any]) -> Rect:
    """``(left, top, right, bottom)`` of a node with its title."""
    (x, y), (width, height) = row["pos"], row["size"]
    return x, y - TITLE_BAR, x + width, y + height


def apart(one: Rect, other: Rect) -> float:
    """How far two boxes are from each other, sideways or upwards; negative where they overlap."""
    return max(one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3])


@pytest.mark.parametrize(("title", "shown"), graphs(), ids=[*TITLES, BLUEPRINT.stem])
def test_nodes_lie_apart_and_each_in_one_group(title: str, shown: dict[str, Any]) -> None:
    groups: dict[str, Rect] = {}
    for row in shown["groups"]:
        x, y, width, height = row["bounding"]
        groups[row["title"]] = (x, y, x + width, y + height)
    assert groups
    for one, other in combinations(groups, 2):
        assert apart(groups[one], groups[other]) > 0, f"{one} overlaps {other}"
    for one, other in combinations(shown["nodes"], 2):
        assert apart(rect(one), rect(other)) >= ROOM, f"{one['type']} {one['id']} and {other['type']} {other['id']}"
    for row in makers(shown["nodes"]):
        left, top, right, bottom = rect(row)
        around = [g for g in groups.values() if g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3]]
        assert len(around) == 1, f"{row['type']} {row['id']} is in {len(around)} groups"


def test_the_editor_finds_the_blueprint_by_its_whole_title() -> None:
    title = BLUEPRINT.stem
    assert title == blueprint()["name"]
    assert all(word.start() <= SEARCHED for word in re.finditer(r"\S+", title))


def test_the_blueprint_is_the_main_graph() -> None:
    """All but its images and its file; what a person sets stands on the outside."""

    def inside(nodes: list[dict[str, Any]]) -> list[tuple[str, Any]]:
        left_out = ("LoadImage", "SaveVideo", NOTE)
        return sorted((row["type"], row["widgets_values"]) for row in nodes if row["type"] not in left_out)

    definition = blueprint()
    assert inside(definition["nodes"]) == inside(graph(MAIN)["nodes"])
    nodes = {row["id"]: row for row in definition["nodes"]}
    for link in definition["links"]:
        if link["origin_id"] == definition["inputNode"]["id"]:
            given = definition["inputs"][link["origin_slot"]]
            assert link["id"] in given["linkIds"]
        else:
            given = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in given["links"]
        if link["target_id"] == definition["outputNode"]["id"]:
            taken = definition["outputs"][link["target_slot"]]
            assert link["id"] in taken["linkIds"]
        else:
            taken = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert link["id"] == taken["link"]
        assert given["type"] == taken["type"] == link["type"]
    outside = [row["name"] for row in definition["inputs"]]
    assert {"first_image", "last_image", "prompt", "four_steps", "seed"} <= set(outside)
