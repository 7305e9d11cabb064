"""The chain in real graphs: joined, kept, looped, with an expert that continues clips, and refused in its words."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, Run
from nano_graph import FIRST, IMAGES, LAST, LOAD, MODEL, PROMPT, VAE, Graph, node, single_nodes
from PIL import Image
from test_comfyui_nodes import LEVEL, frames, made

BATCH, CHAIN, REPORT = "80", "81", "82"
SIZE = {"width": 64, "height": 64, "segment_length": 5, "fps": 8.0, "fit": "crop", "loop": False}
SAMPLING = {"seed": 0, "steps": 1, "guidance": 1.0, "shift": 16.0, "sampler": "unipc"}
VALUES = {**SIZE, **SAMPLING, "negative_prompt": "", "prompts": PROMPT}
PATIENCE = 120.0  # s
GOES_ON = "clip 2 of 2 was not made; the same chain goes on, with 1 clip kept"
# A host whose disk is full behind one kept clip, and whose text encoder gives no numbers for "broken", while the file
# named so lies beside it.
FAULTS = """
import errno, os, pathlib
import comfy.sd
here = pathlib.Path(__file__).parent
write, encode = pathlib.Path.write_bytes, comfy.sd.CLIP.encode_from_tokens_scheduled
tokenize = comfy.sd.CLIP.tokenize
def full(path, data):
    if (here / "full").exists() and any(path.parent.glob("[!.]*.latents.safetensors")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(path, data)
def remember(clip, text, *more, **named):
    clip.said = text
    return tokenize(clip, text, *more, **named)
def broken(clip, *more, **named):
    found = encode(clip, *more, **named)
    if (here / "broken").exists() and clip.said == "broken":
        found[0][0].fill_(float("nan"))
    return found
pathlib.Path.write_bytes = full
comfy.sd.CLIP.tokenize, comfy.sd.CLIP.encode_from_tokens_scheduled = remember, broken
NODE_CLASS_MAPPINGS = {}
"""


def chain(images: int = 3, **values: Any) -> Graph:
    """First, last, first, ... of the bundled images, through one node."""
    graph = {key: row for key, row in single_nodes().items() if key in (FIRST, LAST, LOAD, MODEL, VAE, IMAGES)}
    before = [FIRST, 0]
    for index in range(1, images):
        key = f"{BATCH}{index}"
        graph[key] = node("ImageBatch", image1=before, image2=[LAST if index % 2 else FIRST, 0])
        before = [key, 0]
    wires = {"model": [MODEL, 0], "clip": [LOAD, 1], "vae": [VAE, 0], "clip_vision": [LOAD, 2], "images": before}
    graph[CHAIN] = node("WanFLF2VChain", **{**VALUES, **wires, **values})
    graph[IMAGES]["inputs"]["images"] = [CHAIN, 0]
    graph[REPORT] = node("PreviewAny", source=[CHAIN, 2])
    return graph


def report(run: Run) -> list[str]:
    assert run.status == "success", run.error
    return "".join(run.outputs[REPORT]["text"]).splitlines()


def test_clips_are_joined_and_only_what_changed_is_made_again(server: ComfyServer) -> None:
    def kept() -> int:
        folder = server.base / "output" / "wan_flf2v" / "chains"
        return len(list(folder.glob("*.latents.safetensors")))

    before, run = kept(), server.run(chain())
    first, *joins = report(run)
    assert first.startswith("2 clips: 9 frames of 64x64")
    (join,) = joins
    assert join.startswith("join at frame 5: jump x")
    whole = frames(server, run)
    one = single_nodes()
    one["72"] = node(
        "WanFLF2VLocal", model=[MODEL, 0], clip=[LOAD, 1], vae=[VAE, 0], clip_vision=[LOAD, 2], first_image=[FIRST, 0],
        last_image=[LAST, 0], prompt=PROMPT, length=5,
        **{name: VALUES[name] for name in VALUES if name not in ("segment_length", "loop", "prompts")},
    )  # fmt: skip
    one[IMAGES]["inputs"]["images"] = ["72", 0]
    assert np.abs(whole[:5] - made(server, one)).max() <= LEVEL
    values = [data["value"] for data in run.of("progress") if data["node"] == CHAIN]
    assert values == sorted(values), "the bar goes over the whole"
    assert any(text.startswith("clip 2/2: sampling") for text in run.texts(CHAIN))
    again = server.run(chain(prompts=f"{PROMPT}\n---\na square"))
    assert report(again)[0].startswith("2 clips, 1 of them made before: 9 frames")
    assert np.array_equal(frames(server, again)[:5], whole[:5])
    assert kept() == before + 3


def test_a_loop_leaves_out_the_frame_it_begins_with(server: ComfyServer) -> None:
    run = server.run(chain(images=2, loop=True, seed=1))
    first, *joins = report(run)
    assert first.startswith("2 clips: 8 frames")
    assert [join.split(":")[0] for join in joins] == ["join at frame 5", "join at frame 0"]
    still = chain(images=2, loop=True, seed=2)
    still[f"{BATCH}1"]["inputs"]["image2"] = [FIRST, 0]
    assert any("stand nearly still" in text for text in server.run(still).texts(CHAIN))


def test_one_clip_is_no_plural(server: ComfyServer) -> None:
    assert report(server.run(chain(images=2, seed=7)))[0].startswith("1 clip: 5 frames of 64x64")


def test_images_are_exact_where_that_is_asked_for(server: ComfyServer) -> None:
    """On the clips of the loop before: a repair is no other chain."""
    run = server.run(chain(images=2, loop=True, seed=1, repair="exact"))
    lines = report(run)
    assert lines[0].startswith("2 clips, 2 of them made before: 8 frames")
    assert sum("(100% match by SSIM)" in line for line in lines) == 3
    found = frames(server, run)
    for frame, name in ((0, "nano_first.png"), (4, "nano_last.png")):
        assert np.array_equal(found[frame], np.asarray(Image.open(server.base / "input" / name).convert("RGB")))


def test_clips_longer_than_those_of_training_are_other_clips(server: ComfyServer) -> None:
    found = {}
    for way in ("plain", "windows"):
        run = server.run(chain(images=2, segment_length=9, longer=way, window=5, overlap=0))
        assert "9 frames of 64x64" in report(run)[0]
        found[way] = frames(server, run)
    assert np.abs(found["windows"] - found["plain"]).mean() > 1


def test_experts_take_over_frames_of_the_clip_before(server: ComfyServer) -> None:
    """A LoRA on one of them is another chain."""
    graph = chain(segment_length=13)
    del graph[CHAIN]["inputs"]["clip_vision"]
    for key, name in (("60", "high"), ("61", "low")):
        graph[key] = node(
            "WanFLF2VLoadModel", model_name=f"nano_{name}_noise.safetensors", weight_dtype="default", attention="auto"
        )
    graph["62"] = node(
        "WanFLF2VExperts", high_noise=["60", 0], low_noise=["61", 0], boundary=0.9, low_noise_guidance=0.0
    )
    graph[CHAIN]["inputs"]["model"] = ["62", 0]
    assert report(server.run(graph))[0].startswith("2 clips: 21 frames")
    graph["63"] = node("WanFLF2VLoRA", model=["60", 0], lora_name="nano_high_noise_lora.safetensors", strength=1.0)
    graph["62"]["inputs"]["high_noise"] = ["63", 0]
    assert report(server.run(graph))[0].startswith("2 clips: 21 frames"), "nothing of the chain before fits"
    graph[CHAIN]["inputs"]["segment_length"] = 9
    assert "clips of 9 frames have no room for the 5 frames that each takes over" in server.run(graph).error


@pytest.fixture(scope="module")
def faulty(new_base: Callable[..., Path], models: Path) -> Iterator[ComfyServer]:
    base = new_base("faulty", models)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "faults.py").write_text(FAULTS, "utf-8")
    with ComfyServer(base) as running:
        yield running


def kept_clips(server: ComfyServer) -> list[Path]:
    return sorted((server.base / "output" / "wan_flf2v" / "chains").glob("[!.]*"))  # without what is being written


def test_a_clip_that_fails_is_one_line_and_the_same_graph_goes_on(faulty: ComfyServer) -> None:
    graph, fault = chain(prompts=f"{PROMPT}\n---\nbroken"), faulty.base / "custom_nodes" / "broken"
    fault.touch()
    run = faulty.run(graph)
    fault.unlink()
    assert run.status == "error"
    (line,) = run.error.splitlines()
    assert "NaN" in line
    assert any(GOES_ON in text for text in run.texts(CHAIN))
    assert "failed" in run.texts(CHAIN)[-1]
    assert len(kept_clips(faulty)) == 1
    again = faulty.run(graph)
    assert report(again)[0].startswith("2 clips, 1 of them made before: 9 frames")
    assert len(kept_clips(faulty)) == 2


def test_a_disk_that_fills_between_clips_costs_no_clip(faulty: ComfyServer) -> None:
    """The video comes out, the node says what is not kept, and another run makes that alone."""
    for path in kept_clips(faulty):
        path.unlink()
    fault = faulty.base / "custom_nodes" / "full"
    fault.touch()
    run = faulty.run(chain(seed=5))
    fault.unlink()
    assert report(run)[0].startswith("2 clips: 9 frames")
    (told,) = {line for text in run.texts(CHAIN) for line in text.splitlines() if "could not be kept" in line}
    assert told.startswith("clip 2 could not be kept (can't write ")
    assert told.endswith(
        ": No space left on device; name another place or free this one); the chain goes on, but a stop would lose it"
    )
    assert len(kept_clips(faulty)) == 1
    again = faulty.run(chain(seed=5, window=77))  # another graph to the host, the same chain
    assert report(again)[0].startswith("2 clips, 1 of them made before: 9 frames")
    assert np.array_equal(frames(faulty, again), frames(faulty, run))


def test_a_stop_in_the_second_clip_leaves_the_first(faulty: ComfyServer) -> None:
    def stop(run: Run, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data["node"] == CHAIN and data["value"] > data["max"] / 2:
            faulty.interrupt()

    graph = chain(seed=6, steps=8)
    run = faulty.run(graph, stop)
    assert run.status == "interrupted"
    assert any(GOES_ON in text for text in run.texts(CHAIN))
    assert report(faulty.run(graph))[0].startswith("2 clips, 1 of them made before: 9 frames")


def test_a_chain_killed_with_its_server_goes_on_in_the_next(faulty: ComfyServer) -> None:
    graph, before = chain(seed=8, steps=8), len(kept_clips(faulty))
    status, _ = faulty.queue(graph)
    assert status == 200
    deadline = time.monotonic() + PATIENCE
    while len(kept_clips(faulty)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    faulty.kill(signal.SIGKILL)
    faulty.start()
    assert report(faulty.run(graph))[0].startswith("2 clips, 1 of them made before: 9 frames")


@pytest.mark.parametrize(
    ("images", "values", "message"),
    [
        (1, {}, "1 image is given and a chain goes from image to image; give 2 or more"),
        (3, {"prompts": "a\n---\nb\n---\nc"}, "3 prompts are given for 2 clips"),
        (2, {"prompts": "a\n---\nb"}, "2 prompts are given for 1 clip; give one for all"),
    ],
)
def test_what_is_no_chain_is_one_line(server: ComfyServer, images: int, values: dict[str, Any], message: str) -> None:
    run = server.run(chain(images, **values))
    assert run.status == "error"
    assert message in run.error


def test_a_length_that_can_not_be_is_said_of_its_own_input(server: ComfyServer) -> None:
    status, answer = server.queue(chain(segment_length=8))
    assert status == 400
    (error,) = answer["node_errors"][CHAIN]["errors"]
    assert error["extra_info"]["input_name"] == "segment_length"
    assert "segment_length=8 is not 4n+1; use 5 or 9" in error["details"]
