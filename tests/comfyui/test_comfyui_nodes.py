"""Every local node in real graphs: alone, with core's nodes on either side, cached, refused."""

from __future__ import annotations

import math
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, Run
from nano_graph import (
    COND,
    DECODE,
    FIRST,
    IMAGES,
    LAST,
    LOAD,
    MODEL,
    NEGATIVE,
    POSITIVE,
    SAMPLER,
    SIZE,
    VAE,
    VIDEO,
    Graph,
    core_conditioning,
    node,
    single_nodes,
)
from PIL import Image

LEVEL = 1.0  # of 255: what rounding to 8 bit on either side may cost


def frames(server: ComfyServer, run: Run, key: str = IMAGES) -> np.ndarray:
    assert run.status == "success", run.error
    files = [server.base / "output" / row["subfolder"] / row["filename"] for row in run.outputs[key]["images"]]
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]).astype(np.float64)


def made(server: ComfyServer, graph: Graph) -> np.ndarray:
    return frames(server, server.run(graph))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def apart(pair: str, a: np.ndarray, b: np.ndarray) -> float:
    """The table of pairs, a row at a time."""
    assert a.shape == b.shape
    worst = float(np.abs(a - b).max())
    print(f"{pair}: largest difference {worst:.0f} of 255, {psnr(a, b):.1f} dB")
    return worst


@pytest.fixture(scope="module")
def reference(server: ComfyServer) -> np.ndarray:
    return made(server, single_nodes())


def with_loras(graph: Graph, *strengths: float) -> Graph:
    model = MODEL
    for index, strength in enumerate(strengths):
        key = f"5{index}"
        graph[key] = node("WanFLF2VLoRA", model=[model, 0], lora_name="nano_lora.safetensors", strength=strength)
        model = key
    graph[SAMPLER]["inputs"]["model"] = [model, 0]
    return graph


@pytest.fixture(scope="module")
def with_a_lora(server: ComfyServer) -> np.ndarray:
    return made(server, with_loras(single_nodes(), 1.0))


def test_single_nodes_give_what_the_one_node_gives(
    server: ComfyServer, reference: np.ndarray, workflow: dict[str, Any]
) -> None:
    workflow["4"]["inputs"].update(steps=single_nodes()[SAMPLER]["inputs"]["steps"], **SIZE)
    run = server.run(workflow)
    assert apart("single nodes / WanFLF2VLocal", reference, frames(server, run, "6")) <= LEVEL


def test_the_bundled_parts_are_the_single_files(server: ComfyServer, reference: np.ndarray) -> None:
    graph = single_nodes()
    graph[MODEL]["inputs"]["model_name"] = graph[VAE]["inputs"]["vae_name"] = "nano (bundled)"
    assert apart("bundled / single files", made(server, graph), reference) <= LEVEL


@pytest.mark.parametrize(("name", "least"), [("packed/nano-Q8_0.gguf", 38.0), ("packed/nano_fp8.safetensors", 28.0)])
def test_packed_files_give_nearly_the_same(
    server: ComfyServer, reference: np.ndarray, with_a_lora: np.ndarray, name: str, least: float
) -> None:
    """In the loader's list, loaded packed, with a LoRA on it and without a trace of it afterwards."""
    graph = single_nodes()
    graph[MODEL]["inputs"]["model_name"] = name
    packed = made(server, graph)
    print(f"{name} / float16: {psnr(packed, reference):.1f} dB")
    assert psnr(packed, reference) > least
    changed = made(server, with_loras(graph, 1.0))
    print(f"{name} / float16 with a LoRA: {psnr(changed, with_a_lora):.1f} dB")
    assert psnr(changed, with_a_lora) > least - 3
    assert psnr(changed, packed) < 40
    again = single_nodes()
    again[MODEL]["inputs"]["model_name"] = name
    again[SAMPLER]["inputs"]["seed"] = 1
    dequantized = single_nodes()
    dequantized[MODEL]["inputs"].update(model_name=name, weight_dtype="fp32")
    dequantized[SAMPLER]["inputs"]["seed"] = 1
    assert apart(f"{name} kept / dequantized", made(server, again), made(server, dequantized)) <= LEVEL


def test_core_conditioning_drives_our_sampler(server: ComfyServer, reference: np.ndarray) -> None:
    """Images of the clip's own size: no resize, so nothing may differ but how the image encoder sees them."""
    graph = single_nodes()
    core_conditioning(graph)
    assert apart("core WanFirstLastFrameToVideo / ours, no resize", made(server, graph), reference) <= 3 * LEVEL


def test_core_conditioning_on_photographs_differs_by_the_resize_kernel_only(server: ComfyServer) -> None:
    results = []
    for core in (False, True):
        graph = single_nodes()
        graph[FIRST]["inputs"]["image"], graph[LAST]["inputs"]["image"] = "real_first.png", "real_last.png"
        if core:
            core_conditioning(graph)
        results.append(made(server, graph))
    apart("core WanFirstLastFrameToVideo / ours, photographs resized", *results)
    assert psnr(*results) > 20.0


def test_core_vae_takes_our_latents_and_gives_ours(server: ComfyServer, reference: np.ndarray) -> None:
    """Core's own VAE class on the same weights: decoding our latents, and encoding for our conditioning."""
    graph = single_nodes()
    graph["30"] = node("VAELoader", vae_name="nano_vae.safetensors")
    graph["31"] = node("VAEDecode", samples=[SAMPLER, 0], vae=["30", 0])
    graph["32"] = node("SaveImage", images=["31", 0], filename_prefix="core_vae")
    graph["33"] = node("WanFLF2VDecode", vae=["30", 0], latent=[SAMPLER, 0], fps=8.0, tiling="off")
    graph["34"] = node("SaveImage", images=["33", 0], filename_prefix="core_vae_our_node")
    graph["35"] = node("VAEDecode", samples=[SAMPLER, 0], vae=[VAE, 0])
    graph["36"] = node("SaveImage", images=["35", 0], filename_prefix="our_vae_core_node")
    run = server.run(graph)
    assert apart("our LATENT in core VAEDecode, core VAE", frames(server, run, "32"), reference) <= LEVEL
    assert apart("core VAE in our Decode", frames(server, run, "34"), reference) <= LEVEL
    assert apart("our VAE in core VAEDecode", frames(server, run, "36"), reference) <= LEVEL
    graph = single_nodes()
    graph["30"] = node("VAELoader", vae_name="nano_vae.safetensors")
    graph[COND]["inputs"]["vae"] = ["30", 0]
    assert apart("core VAE in our Conditioning", made(server, graph), reference) <= 3 * LEVEL


def test_our_vae_encodes_as_core_vae_does(server: ComfyServer) -> None:
    graph: Graph = {
        "1": node("LoadImage", image="real_first.png"),
        "2": node("ImageScale", image=["1", 0], upscale_method="bilinear", width=192, height=128, crop="center"),
        "3": node("WanFLF2VLoadVAE", vae_name="nano_vae.safetensors", dtype="fp32"),
        "4": node("VAELoader", vae_name="nano_vae.safetensors"),
    }
    tiling = {"tile_size": 64, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}
    for index, (key, vae) in enumerate((("ours", "3"), ("core", "4"))):
        graph[f"1{index}"] = node("VAEEncode", pixels=["2", 0], vae=[vae, 0])
        graph[f"2{index}"] = node("VAEDecode", samples=[f"1{index}", 0], vae=["4", 0])
        graph[f"3{index}"] = node("SaveImage", images=[f"2{index}", 0], filename_prefix=key)
        graph[f"4{index}"] = node("VAEDecodeTiled", samples=["11", 0], vae=[vae, 0], **tiling)
        graph[f"5{index}"] = node("SaveImage", images=[f"4{index}", 0], filename_prefix=f"{key}_tiled")
    run = server.run(graph)
    assert apart("our VAE in core VAEEncode / core VAE", frames(server, run, "30"), frames(server, run, "31")) <= LEVEL
    ours, core, whole = (frames(server, run, key) for key in ("50", "51", "31"))
    apart("our VAE in core VAEDecodeTiled / core VAE", ours, core)
    assert psnr(ours, whole) > 30.0


def test_our_video_goes_through_core_nodes(server: ComfyServer, reference: np.ndarray) -> None:
    graph = single_nodes()
    graph[VIDEO] = node("SaveVideo", video=[DECODE, 1], filename_prefix="video", format="auto", codec="auto")
    graph["40"] = node("GetVideoComponents", video=[DECODE, 1])
    graph["41"] = node("SaveImage", images=["40", 0], filename_prefix="components")
    run = server.run(graph)
    assert apart("our VIDEO in GetVideoComponents", frames(server, run, "41"), reference) == 0
    (row,) = run.outputs[VIDEO]["images"]
    check_mp4(server.base / "output" / row["subfolder"] / row["filename"], reference)


def check_mp4(path: Path, reference: np.ndarray) -> None:
    import av

    from wan_local import video

    read, fps = video.read(path)
    assert fps == 8.0
    saved = read.numpy().astype(np.float64) * 255.0
    assert apart("our VIDEO in SaveVideo", saved, reference) < 64
    assert psnr(saved, reference) > 38.0
    with av.open(str(path)) as container:
        assert {"prompt"} <= set(container.metadata)
        assert "WanFLF2VSampler" in container.metadata["prompt"]


def test_tiles_change_little(server: ComfyServer) -> None:
    results = []
    for tiling in ("off", "256"):
        graph = single_nodes()
        graph[COND]["inputs"].update(width=320, height=64, length=5)
        graph[SAMPLER]["inputs"]["steps"] = 2
        graph[DECODE]["inputs"]["tiling"] = tiling
        results.append(made(server, graph))
    apart("Decode in tiles / whole", *results)
    assert psnr(*results) > 25.0


def with_model(name: str) -> Graph:
    graph = single_nodes()
    graph[MODEL]["inputs"]["model_name"] = name
    return graph


def told_on(run: Run, key: str) -> list[str]:
    """What a node showed as text, in order: a number of 4 bytes, the length of its id, the id, the text."""
    head = b"\0\0\0\3" + len(key).to_bytes(4, "big") + key.encode()
    return [message[len(head) :].decode() for message in run.previews if message.startswith(head)]


def test_weights_without_positions_see_the_first_image_alone(server: ComfyServer, reference: np.ndarray) -> None:
    """From our node, and from core's with one output of the image encoder (its authors' way) and with both."""
    graph = with_model("i2v.safetensors")
    run = server.run(graph)
    ours = frames(server, run)
    assert np.abs(ours - reference).max() > 5
    both, first = with_model("i2v.safetensors"), with_model("i2v.safetensors")
    core_conditioning(both)
    core_conditioning(first)
    del first[COND]["inputs"]["clip_vision_end_image"], first["21"]
    assert apart("I2V: ours / core's with one image seen", ours, made(server, first)) <= LEVEL
    assert apart("I2V: ours / core's with both", ours, made(server, both)) <= LEVEL
    named = "1 tensor belongs to no layer of the model and is not used (model_type.Wan2_1-I2V-14B-720P)"
    assert any(named in text for text in told_on(run, MODEL))
    assert named in server.log()


def test_one_of_two_experts_says_so_on_the_node_to_the_end(server: ComfyServer) -> None:
    run = server.run(with_model("expert.safetensors"))
    assert run.status == "success", run.error
    sampling, *shown = told_on(run, SAMPLER)
    assert sampling == "sampling"
    assert [text for text in shown if "two experts" not in text] == []
    assert "3 steps" in shown[-1]
    assert "one of Wan2.2's two experts and does every step alone" in server.log()
    again = with_model("nano.safetensors")
    again[SAMPLER]["inputs"]["seed"] = 41
    assert not any("two experts" in text for text in told_on(server.run(again), SAMPLER))


def test_a_lora_changes_the_clip_and_leaves_no_trace(
    server: ComfyServer, reference: np.ndarray, with_a_lora: np.ndarray
) -> None:
    halves, off = (made(server, with_loras(single_nodes(), *strengths)) for strengths in ((0.5, 0.5), (0.0,)))
    assert psnr(with_a_lora, reference) < 40.0, "the LoRA changed nothing"
    assert apart("LoRA at 1 / two at 0.5", with_a_lora, halves) <= 3 * LEVEL
    assert apart("LoRA at 0 / none", off, reference) == 0
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["seed"] = 1  # runs again, on the model the LoRA was on
    fresh = made(server, graph)
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["seed"] = 1
    graph[MODEL]["inputs"]["model_name"] = "nano (bundled)"
    assert apart("after a LoRA / never had one", fresh, made(server, graph)) == 0
    assert "nano_lora.safetensors: 24 tensors change 12 parameters" in server.log()


def test_only_what_changed_runs_again(server: ComfyServer, reference: np.ndarray) -> None:
    graph = single_nodes()
    assert server.run(graph).status == "success"
    same = server.run(graph)
    assert set(graph) - {IMAGES} <= same.cached
    graph[SAMPLER]["inputs"]["seed"] = 77
    seed = server.run(graph)
    assert {FIRST, LAST, LOAD, MODEL, VAE, POSITIVE, NEGATIVE, COND} <= seed.cached
    assert not {SAMPLER, DECODE} & seed.cached
    graph[DECODE]["inputs"]["fps"] = 12.0
    rate = server.run(graph)
    assert SAMPLER in rate.cached
    assert DECODE not in rate.cached


def test_guidance_one_never_asks_the_negative_side(server: ComfyServer) -> None:
    graph = single_nodes()
    graph[SAMPLER]["inputs"].update(guidance=1.0, negative=[NEGATIVE, 0])  # holds no images: would be refused
    assert server.run(graph).status == "success"


def test_a_batch_of_latents_gives_as_many_clips(server: ComfyServer) -> None:
    graph = single_nodes()
    core_conditioning(graph)
    graph[COND]["inputs"]["batch_size"] = 2
    two = made(server, graph)
    graph[COND]["inputs"]["batch_size"] = 1
    one = made(server, graph)
    assert len(two) == 2 * len(one) == 2 * SIZE["length"]
    assert apart("first of a batch of two / alone", two[: len(one)], one) <= 3 * LEVEL


def test_previews_show_the_middle_and_can_be_off(server: ComfyServer) -> None:
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["seed"] = 123
    shown = server.run(graph)
    assert len(shown.images) >= 3
    graph[SAMPLER]["inputs"]["seed"] = 124
    assert server.run(graph, extra_data={"preview_method": "none"}).images == []


def test_steps_are_counted_and_timed_on_the_node(server: ComfyServer) -> None:
    graph = single_nodes()
    graph[SAMPLER]["inputs"].update(seed=125, steps=9)
    run = server.run(graph)
    last = next(text for text in run.texts(SAMPLER) if text.startswith("sampling step 9/9, "))
    assert " s/step, " in last
    values = [data["value"] for data in run.of("progress") if data["node"] == SAMPLER]
    assert values == sorted(values)
    assert len(set(values)) >= 5


def stages(texts: list[str]) -> list[str]:
    """The lines without their counts, each once in a row."""
    return [stage for stage, _ in groupby(re.split(r" (?:step )?\d", text)[0] for text in texts)]


def test_every_stage_is_told_and_the_last_line_says_what_was_made(
    server: ComfyServer, workflow: dict[str, Any]
) -> None:
    asked = workflow["4"]["inputs"]
    asked.update(steps=3, seed=126, length=9)
    run = server.run(workflow)
    assert run.status == "success", run.error
    *told, last = run.texts("4")
    assert stages(told) == ["encoding the prompt", "encoding the images", "sampling", "decoding"]
    clip = f"{asked['length']} frames of {asked['width']}x{asked['height']}"
    lasts = f"{clip}, {asked['length'] / asked['fps']:.2f} s at {asked['fps']:g} fps"
    assert last.startswith(f"{lasts}, seed 126; made in ")
    written = run.texts("5")
    assert written[0] == f"writing frame 1/{asked['length']}"
    assert written[-1] == lasts


def test_single_nodes_tell_their_stage_and_what_they_made(server: ComfyServer) -> None:
    graph = single_nodes()
    graph[COND]["inputs"]["length"] = 21
    graph[SAMPLER]["inputs"]["seed"] = 127
    run = server.run(graph)
    assert run.status == "success", run.error
    assert run.texts(COND)[0] == "encoding the images"
    assert run.texts(COND)[-1] == "2 images encoded, for 21 frames of 64x64"
    assert run.texts(SAMPLER)[0] == "sampling"
    assert run.texts(SAMPLER)[-1].startswith("latent of 21 frames of 64x64, seed 127, 3 steps of unipc; sampled in ")
    assert run.texts(DECODE)[0].startswith("decoding")
    assert run.texts(DECODE)[-1] == "21 frames of 64x64, 2.62 s at 8 fps"


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a VAE given as model": (MODEL, {"model_name": "in_truth_a_vae.safetensors"}, "Load Wan FLF2V VAE takes this file"),
    "a text-to-video model": (MODEL, {"model_name": "t2v.safetensors"}, "core's Load Diffusion Model takes this file"),
    "a file cut short": (MODEL, {"model_name": "cut.safetensors"}, "cut short"),
    "conditioning without images": (SAMPLER, {"positive": [POSITIVE, 0]}, "holds no first and last frame"),
    "a single image's latent": (SAMPLER, {"latent": ["60", 0]}, "latent has shape"),
    "a latent of another size": (SAMPLER, {"latent": ["61", 2]}, "take both from the same conditioning node"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_work_is_refused_in_one_line(server: ComfyServer, case: str) -> None:
    key, change, message = REFUSED[case]
    graph = single_nodes()
    graph["60"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph["61"] = node("WanFLF2VConditioning", **{**graph[COND]["inputs"], "length": 5})
    graph[key]["inputs"].update(change)
    run = server.run(graph)
    assert run.status == "error"
    (error,) = run.of("execution_error")
    said = error["exception_message"].strip()
    print(f"{case}: {said}")
    assert error["node_id"] == key
    assert error["exception_type"].split(".")[0] == "wan_local"
    assert message in said
    assert "load_" not in said, "names a function"
    assert "\n" not in said
    assert str(server.base / "server.log") not in said


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3840, 2160), (333, 77)])
def test_images_of_any_size_are_taken(server: ComfyServer, width: int, height: int) -> None:
    image = Image.new("RGB", (width, height), (200, 30, 60))
    image.save(server.base / "input" / f"odd_{width}x{height}.png")
    graph = single_nodes()
    graph[FIRST]["inputs"]["image"] = f"odd_{width}x{height}.png"
    graph[SAMPLER]["inputs"]["steps"] = 1
    assert len(made(server, graph)) == SIZE["length"]
