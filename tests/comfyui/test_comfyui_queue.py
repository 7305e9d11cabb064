"""The bundled workflow in a real ComfyUI, posted to its queue as any program would."""

from __future__ import annotations

import io
import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from comfy_server import PACK, ComfyServer, Run
from PIL import Image

from training.draw import draw, random_clips
from training.report import SEED

LOAD, FIRST, LAST, LOCAL, SAVE_VIDEO, SAVE_IMAGE = map(str, range(1, 7))  # of the bundled workflow
ENDS_PSNR = 24.0  # dB, the nano model's bar on images like those it was trained on
MIDDLE = slice(5, 9)  # frames of the latent frame halfway, which previews show
PREVIEWED = 18  # which of the held-out clips
PREVIEW_PSNR = 18.0  # dB; through the map of the released VAE it is 10
REAL_ENDS_PSNR = 12.0  # dB; photographs are far from its training: only that the ends are the right way round


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def image(path: Path, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def saved(server: ComfyServer, run: Run, node: str) -> list[Path]:
    files = run.outputs[node]["images"]
    return [server.base / "output" / file["subfolder"] / file["filename"] for file in files]


def decoded(path: Path) -> tuple[list[np.ndarray], float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


def check_result(server: ComfyServer, run: Run, workflow: dict[str, Any], bar: float) -> None:
    """mp4 and PNGs are there, in the size, number and rate asked for, and start and end where they should."""
    assert run.status == "success", run.error
    asked = workflow[LOCAL]["inputs"]
    size = (asked["height"], asked["width"], 3)
    (mp4,) = saved(server, run, SAVE_VIDEO)
    frames, fps = decoded(mp4)
    pngs = saved(server, run, SAVE_IMAGE)
    assert (len(frames), len(pngs), fps) == (asked["length"], asked["length"], asked["fps"])
    assert all(frame.shape == size for frame in frames)
    stills = [np.asarray(Image.open(path)) for path in pngs]
    assert all(still.shape == size for still in stills)

    first, last = (
        image(server.base / "input" / workflow[node]["inputs"]["image"], asked["width"], asked["height"])
        for node in (FIRST, LAST)
    )
    ends = {
        "first": (psnr(stills[0], first), psnr(stills[0], last)),
        "last": (psnr(stills[-1], last), psnr(stills[-1], first)),
        "mp4 against png": (min(psnr(a, b) for a, b in zip(frames, stills, strict=True)), -math.inf),
    }
    for end, (right, wrong) in ends.items():
        print(f"{workflow[FIRST]['inputs']['image']} {end}: {right:.1f} dB (the other end: {wrong:.1f} dB)")
    for end, (right, wrong) in ends.items():
        assert right >= bar, f"{end} frame is {right:.1f} dB from its image"
        assert right > wrong, f"{end} frame looks like the other image"


def test_the_bundled_workflow_makes_a_video_between_the_two_bundled_frames(
    server: ComfyServer, bundled: dict[str, Any]
) -> None:
    run = server.run(bundled)
    check_result(server, run, bundled, ENDS_PSNR)
    print(f"took {run.events[-1][0]:.1f} s, {len(run.of('progress'))} messages, {len(run.images)} previews")
    assert run.of("progress"), "the node showed no progress"
    assert run.images, "the node showed no preview"


def test_previews_are_through_the_models_own_map(server: ComfyServer, workflow: dict[str, Any]) -> None:
    """On a clip of which the latents themselves are 24 dB from its frames through that map."""
    clip = random_clips(SEED, PREVIEWED + 1)[PREVIEWED]
    video = ((draw([clip], 17, 64)[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()  # [F, H, W, 3]
    for node, frame in ((FIRST, video[0]), (LAST, video[-1])):
        Image.fromarray(frame).save(server.base / "input" / f"previewed_{node}.png")
        workflow[node]["inputs"]["image"] = f"previewed_{node}.png"
    workflow[LOCAL]["inputs"]["prompt"] = clip.caption
    run = server.run(workflow)
    assert run.status == "success", run.error
    jpeg = run.images[-1][run.images[-1].index(b"\xff\xd8") :]
    preview = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    stills = np.stack([np.asarray(Image.open(path)) for path in saved(server, run, SAVE_IMAGE)])
    shown = stills[MIDDLE].mean(0).astype(np.uint8)
    small = np.asarray(Image.fromarray(shown).resize(preview.shape[1::-1], Image.Resampling.BOX))
    print(f"the last preview is {psnr(preview, small):.1f} dB from what it stands for")
    assert psnr(preview, small) >= PREVIEW_PSNR


def test_the_node_gives_the_frames_that_the_library_gives(server: ComfyServer, workflow: dict[str, Any]) -> None:
    from wan_local.generate import Pipeline

    asked = workflow[LOCAL]["inputs"]
    asked.update(steps=4, length=9)
    run = server.run(workflow)
    assert run.status == "success", run.error
    stills = np.stack([np.asarray(Image.open(path)) for path in saved(server, run, SAVE_IMAGE)])
    names = ("prompt", "negative_prompt", "width", "height", "length", "seed", "steps", "guidance", "shift")
    images = [str(server.base / "input" / workflow[node]["inputs"]["image"]) for node in (FIRST, LAST)]
    pipeline = Pipeline.from_pretrained(PACK / "weights" / "nano", device="cpu")
    frames = pipeline(*images, sampler=asked["sampler"], **{name: asked[name] for name in names})
    difference = np.abs(frames.numpy() * 255.0 - stills).max()
    print(f"largest difference between node and library: {difference:.2f} of 255 (rounding to 8 bit: up to 1)")
    assert difference < 2.0


def test_two_photographs_go_through_the_same_workflow(server: ComfyServer, workflow: dict[str, Any]) -> None:
    workflow[FIRST]["inputs"]["image"], workflow[LAST]["inputs"]["image"] = "real_first.png", "real_last.png"
    workflow[LOCAL]["inputs"]["length"] = 9
    check_result(server, server.run(workflow), workflow, REAL_ENDS_PSNR)


def test_the_same_inputs_again_cost_nothing(server: ComfyServer, workflow: dict[str, Any]) -> None:
    workflow[LOCAL]["inputs"].update(steps=2, length=5)
    assert server.run(workflow).status == "success"
    again = server.run(workflow)
    assert again.status == "success"
    assert {LOAD, FIRST, LAST, LOCAL} <= again.cached
    workflow[LOCAL]["inputs"]["seed"] += 1
    other = server.run(workflow)
    assert other.status == "success"
    assert LOCAL not in other.cached
    assert {LOAD, FIRST, LAST} <= other.cached


def test_stop_takes_effect_within_one_step(server: ComfyServer, workflow: dict[str, Any]) -> None:
    steps = 200
    workflow[LOCAL]["inputs"].update(width=128, height=128, length=9, steps=steps)
    asked_at: list[float] = []
    sampling: list[float] = []

    def stop_while_sampling(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data.get("node") == LOCAL and run.texts(LOCAL)[-1].startswith("sampling step"):
            sampling.append(run.events[-1][0])
            if len(sampling) == 6:
                server.interrupt()
                asked_at.append(run.events[-1][0])

    run = server.run(workflow, stop_while_sampling)
    assert asked_at, f"no progress to stop at: {run.status} {run.error}"
    step = median(after - before for before, after in pairwise(sampling))
    waited = run.events[-1][0] - asked_at[0]
    print(f"a step takes {step:.2f} s; stopped after {waited:.2f} s")
    assert run.status == "interrupted"
    assert waited <= 2 * step + 1.0
    assert run.of("progress")[-1]["value"] < run.of("progress")[-1]["max"] / 2


def test_batches_and_transparent_images_are_taken(server: ComfyServer, workflow: dict[str, Any]) -> None:
    workflow["20"] = {"class_type": "RepeatImageBatch", "inputs": {"image": [FIRST, 0], "amount": 3}}
    workflow["21"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": [LAST, 0], "alpha": [LAST, 1]}}
    workflow[LOCAL]["inputs"].update(first_image=["20", 0], last_image=["21", 0], steps=2, length=5)
    run = server.run(workflow)
    assert run.status == "success", run.error
    assert "first_image is a batch of 3 images; the first one is used" in server.log()


def test_sockets_work_in_core_nodes(server: ComfyServer, workflow: dict[str, Any]) -> None:
    """Text, image and frames through core's own nodes, with what our loader gives."""
    graph = {key: workflow[key] for key in (LOAD, FIRST, LAST)}
    for key, text in (("10", "a red circle"), ("11", "")):
        graph[key] = {"class_type": "CLIPTextEncode", "inputs": {"clip": [LOAD, 1], "text": text}}
    for key, image, crop in (("12", FIRST, "center"), ("13", LAST, "none")):
        inputs = {"clip_vision": [LOAD, 2], "image": [image, 0], "crop": crop}
        graph[key] = {"class_type": "CLIPVisionEncode", "inputs": inputs}
    inputs = {"positive": ["10", 0], "negative": ["11", 0], "vae": [LOAD, 3], "start_image": [FIRST, 0]}
    inputs |= {
        "end_image": [LAST, 0],
        "clip_vision_start_image": ["12", 0],
        "clip_vision_end_image": ["13", 0],
    }
    inputs |= {"width": 64, "height": 64, "length": 9, "batch_size": 1}
    graph["14"] = {"class_type": "WanFirstLastFrameToVideo", "inputs": inputs}
    graph["15"] = {"class_type": "VAEDecode", "inputs": {"samples": ["14", 2], "vae": [LOAD, 3]}}
    graph["16"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["15", 0], "vae": [LOAD, 3]}}
    tiling = {"tile_size": 64, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}
    graph["17"] = {
        "class_type": "VAEDecodeTiled",
        "inputs": {"samples": ["16", 0], "vae": [LOAD, 3], **tiling},
    }
    graph["18"] = {"class_type": "SaveImage", "inputs": {"images": ["17", 0], "filename_prefix": "core"}}
    run = server.run(graph)
    assert run.status == "success", run.error
    assert len(saved(server, run, "18")) == 9


def test_a_folder_that_is_not_listed_is_refused(server: ComfyServer, workflow: dict[str, Any]) -> None:
    workflow[LOAD]["inputs"]["folder"] = "../../weights/nano"
    status, answer = server.queue(workflow)
    assert status == 400
    assert answer["node_errors"][LOAD]["errors"][0]["type"] == "value_not_in_list"


def test_help_pages_and_translations_are_served(server: ComfyServer) -> None:
    translations = server.get("/i18n")
    chinese = translations["zh"]["nodeDefs"]
    infos = {name: info for name, info in server.get("/object_info").items() if name.startswith("WanFLF2V")}
    assert len(infos) >= 8
    for node, info in infos.items():
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        english = translations["en"]["nodeDefs"][node]
        assert (english["display_name"], english["description"]) == (info["display_name"], info["description"])
        for name, row in english["inputs"].items():
            assert row["tooltip"] == inputs[name][1]["tooltip"], f"{node} {name}"
        for language in ("en", "zh"):
            named = translations[language]["nodeDefs"][node]["inputs"]
            assert set(named) == set(inputs), f"{node} {language}"
        for place, name in ((f"{node}.md", info["display_name"]), (f"{node}/zh.md", chinese[node]["display_name"])):
            page = server.get_text(f"/extensions/ComfyUI-WanFLF2V/docs/{quote(place)}")
            assert page.startswith(f"# {name}\n")


def test_the_page_is_given_the_words_that_people_search_for(server: ComfyServer) -> None:
    infos = server.get("/object_info")
    if not any(info.get("search_aliases") for name, info in infos.items() if not name.startswith("WanFLF2V")):
        pytest.skip("this ComfyUI knows no search words; its page looks at names alone")
    infos = {name: info for name, info in infos.items() if name.startswith("WanFLF2V")}
    for word in ("wan", "flf", "first last", "首帧", "尾帧", "首尾帧"):
        assert [node for node, info in infos.items() if word not in info["search_aliases"]] == []
    makers = [node for node, info in infos.items() if "图生视频" in info["search_aliases"]]
    assert set(makers) == {"WanFLF2VLocal", "WanFLF2VGMI", "WanFLF2VWaveSpeed"}


def test_the_node_schemas_are_those_that_shared_workflows_hold(server: ComfyServer) -> None:
    """Ids, sockets, their order and defaults: whoever changes the stored file breaks somebody's workflow."""
    stored = json.loads((Path(__file__).parent / "node_schemas.json").read_text("utf-8"))
    ours = [node for node in server.get("/object_info") if node.startswith("WanFLF2V")]
    assert {node: schema_of(server.get(f"/object_info/{node}")[node]) for node in ours} == stored


def schema_of(info: dict[str, Any]) -> dict[str, Any]:
    """What a workflow depends on, of one node of /object_info."""
    options = ("default", "min", "max", "step", "control_after_generate", "multiline", "options")
    inputs: dict[str, Any] = {}
    for need in ("required", "optional"):
        for name, (kind, *rest) in info["input"].get(need, {}).items():
            values = {key: value for key, value in (rest[0] if rest else {}).items() if key in options}
            if isinstance(kind, list):  # a combo as older versions write it
                kind, values = "COMBO", {"options": kind, **values}
            # What depends on the machine.
            if name in ("folder", "attention", "model_name", "vae_name", "lora_name", "text_encoder"):
                values.pop("options", None)
            inputs[name] = {"type": kind, "needed": need, **values}
    return {
        "inputs": inputs,
        "outputs": dict(zip(info["output_name"], info["output"], strict=True)),
        "category": info["category"],
    }
