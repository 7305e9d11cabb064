"""Wan FLF2V Ends in real graphs: behind a decode, behind a video of any model, and inside the node that does all."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from comfy_server import PACK, ComfyServer, Run
from nano_graph import DECODE, FIRST, IMAGES, LAST, Graph, node, single_nodes, small_image
from PIL import Image

from wan_local import video

ENDS, SHOWN, FIGURES = "70", "71", "72"
LENGTH = 9


def with_ends(**inputs: Any) -> Graph:
    """The bundled model's clip, its frames and figures from Ends."""
    graph = single_nodes()
    values = {"fit": "crop", "repair": "exact", "reach": 8, "remove_flash": False}
    values |= {"first_image": [FIRST, 0], "last_image": [LAST, 0], **inputs}
    graph[ENDS] = node("WanFLF2VEnds", images=[DECODE, 0], **{k: v for k, v in values.items() if v is not None})
    graph[IMAGES]["inputs"]["images"] = [ENDS, 0]
    graph[FIGURES] = node("PreviewAny", source=[ENDS, 2])
    return graph


def frames(server: ComfyServer, run: Run, key: str = IMAGES) -> np.ndarray:
    assert run.status == "success", run.error
    files = [server.base / "output" / row["subfolder"] / row["filename"] for row in run.outputs[key]["images"]]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])


def image(name: str) -> np.ndarray:
    return np.asarray(small_image(f"nano_{name}.png"))


def figures(run: Run) -> dict[str, Any]:
    return json.loads(run.outputs[FIGURES]["text"][0])


@pytest.fixture(scope="module")
def exact(server: ComfyServer) -> Run:
    return server.run(with_ends())


def test_ends_are_the_images_bit_for_bit_and_the_node_says_from_what(server: ComfyServer, exact: Run) -> None:
    made = frames(server, exact)
    assert len(made) == LENGTH
    assert (made[0] == image("first")).all()
    assert (made[-1] == image("last")).all()
    text = exact.texts(ENDS)[-1]
    print(text)
    for word in ("first: ", "last: ", "dB", "SSIM", " -> inf dB", "jitter: ", "largest jump: x"):
        assert word in text
    assert [line[:4] for line in text.splitlines()] == ["    "] * len(text.splitlines()), "Markdown would join lines"
    assert exact.outputs[ENDS]["text"][0] == "\n".join(line[4:] for line in text.splitlines())
    found = figures(exact)
    assert [row["frame"] for row in found["before"]["given"]] == [0, LENGTH - 1]
    assert found["after"]["given"][0]["psnr_db"] is None
    assert found["before"]["given"][0]["psnr_db"] > 15


def test_a_report_passes_the_frames_on_as_they_are(server: ComfyServer) -> None:
    graph = with_ends(repair="report")
    graph["73"] = node("SaveImage", images=[DECODE, 0], filename_prefix="decoded")
    run = server.run(graph)
    assert (frames(server, run) == frames(server, run, "73")).all()
    assert figures(run)["before"] == figures(run)["after"]
    assert "->" not in run.texts(ENDS)[-1]
    none = server.run(with_ends(repair="report", first_image=None, last_image=None))
    assert none.status == "success"
    assert none.texts(ENDS)[-1].startswith("    jitter: ")


def test_a_keyframe_is_exact_and_a_weak_one_is_measured(server: ComfyServer) -> None:
    graph = with_ends(keyframes=["81", 0])
    key = {"image": [LAST, 0], "low_noise_strength": -1.0}
    graph["80"] = node("WanFLF2VKeyframe", frame=4, strength=1.0, **key)
    graph["81"] = node("WanFLF2VKeyframe", frame=2, strength=0.5, keyframes=["80", 0], **key)
    refused = server.run(graph)
    assert refused.status == "error"
    assert "two images stand at frame 4: " in refused.of("execution_error")[0]["exception_message"]
    graph["81"]["inputs"]["frame"] = -1
    del graph[ENDS]["inputs"]["last_image"]
    run = server.run(graph)
    made = frames(server, run)
    assert (made[4] == image("last")).all()
    assert not (made[-1] == image("last")).all()
    assert [row["frame"] for row in figures(run)["before"]["given"]] == [0, 4, LENGTH - 1]


def test_images_of_any_size_and_batches_are_taken(server: ComfyServer) -> None:
    graph = with_ends(first_image=["91", 0], last_image=None, fit="stretch")
    graph["90"] = node("ImageScale", image=[FIRST, 0], upscale_method="bicubic", width=200, height=90, crop="disabled")
    graph["91"] = node("ImageBatch", image1=["90", 0], image2=["90", 0])
    run = server.run(graph)
    assert len(frames(server, run)) == LENGTH
    assert [row["frame"] for row in figures(run)["after"]["given"]] == [0]


def test_a_repair_without_an_image_is_refused_in_words(server: ComfyServer) -> None:
    run = server.run(with_ends(first_image=None, last_image=None))
    (error,) = run.of("execution_error")
    assert error["node_id"] == ENDS
    assert error["exception_message"].strip().startswith("repair=exact needs an image; give the first")


def test_the_template_repairs_a_video_of_any_length(server: ComfyServer) -> None:
    """The graph as it is shared, a file in the place of the cloud; 10 frames, as no model of ours makes."""
    graph = deepcopy(json.loads((PACK / "workflows" / "api" / "wan_flf2v_exact_ends.json").read_text("utf-8")))
    first, last = (image(name).astype(np.float32) / 255 for name in ("first", "last"))
    share = np.linspace(0, 1, 10, dtype=np.float32)[:, None, None, None]
    import torch

    clip = torch.from_numpy((first * (1 - share) + last * share) * 0.85 + 0.05)
    video.write(clip, server.base / "input" / "of_a_cloud.mp4", 8)
    graph["3"] = node("LoadVideo", file="of_a_cloud.mp4")
    graph["4"]["inputs"]["video"] = ["3", 0]
    for key, name in (("1", "nano_first.png"), ("2", "nano_last.png")):
        graph[key]["inputs"]["image"] = name
    run = server.run(graph)
    assert run.status == "success", run.error
    (row,) = run.outputs["7"]["images"]
    saved, fps = video.read(server.base / "output" / row["subfolder"] / row["filename"])
    assert (len(saved), fps) == (10, 8)
    print(run.texts("5")[-1])
    assert " -> inf dB" in run.texts("5")[-1]
    for made, wanted in ((saved[0], first), (saved[-1], last)):
        assert 10 * np.log10(1 / ((made.numpy() - wanted) ** 2).mean()) > 30, "what the codec loses, and no more"


def test_the_node_that_does_all_repairs_what_it_made(server: ComfyServer, workflow: dict[str, Any]) -> None:
    workflow["4"]["inputs"].update(steps=2, length=5, repair="exact")
    workflow["90"] = node("SaveImage", images=["4", 0], filename_prefix="local")
    run = server.run(workflow)
    made = frames(server, run, "90")
    assert (made[0] == image("first")).all()
    assert (made[-1] == image("last")).all()
    assert " -> inf dB" in run.texts("4")[-1]
