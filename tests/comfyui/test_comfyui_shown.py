"""What the server gives the editor to show: ends, two clips, estimates, the example images."""

from __future__ import annotations

import io
import json
import textwrap
import urllib.error
import urllib.request
from typing import Any

import pytest
from comfy_server import PACK, ComfyServer, Run
from nano_graph import DECODE, FIRST, LAST, SAMPLER, Graph, node, single_nodes
from PIL import Image

from wan_local import video

COMPARE, ENDS = "80", "70"
ASKED = "width=64&height=64&length=9&steps=3&guidance=2&model_name=nano.safetensors&attention=auto&weight_dtype=default"


def still(image: str, frames: int, fps: float) -> Graph:
    """A clip that stands still, of one of the pack's images."""
    return {
        f"{image}1": node("LoadImage", image=f"{image}.png"),
        f"{image}2": node("RepeatImageBatch", image=[f"{image}1", 0], amount=frames),
        f"{image}3": node("CreateVideo", images=[f"{image}2", 0], fps=fps),
    }


def compared(server: ComfyServer, a: str, b: str, graph: Graph) -> Run:
    return server.run({**graph, COMPARE: node("WanFLF2VCompare", video_a=[f"{a}3", 0], video_b=[f"{b}3", 0])})


def view(server: ComfyServer, place: dict[str, Any]) -> bytes:
    return server.get_bytes(f"/view?filename={place['filename']}&subfolder={place['subfolder']}&type={place['type']}")


def request(server: ComfyServer, path: str, *, post: bool = False, **headers: str) -> tuple[int, Any]:
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", b"{}" if post else None, headers)
    if post:
        asked.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_clips_of_other_lengths_and_rates_are_compared(server: ComfyServer, tmp_path: Any) -> None:
    graph = {**still("nano_first", 5, 8.0), **still("nano_last", 9, 16.0)}
    run = compared(server, "nano_first", "nano_last", graph)
    assert run.status == "success", run.error
    (shown,) = run.outputs[COMPARE]["wan_flf2v_compare"]
    for name, frames, fps in (("a", 5, 8.0), ("b", 9, 16.0)):
        clip = shown[name]
        assert (clip["frames"], clip["fps"], clip["width"], clip["height"]) == (frames, fps, 64, 64)
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(view(server, clip))
        made, rate = video.read(path)
        assert (len(made), rate) == (frames, fps)
    (text,) = run.outputs[COMPARE]["text"]
    assert text == textwrap.dedent(run.texts(COMPARE)[-1])
    a, b, difference = text.splitlines()
    assert (a, b) == ("a: 5 frames of 64x64, 0.62 s at 8 fps", "b: 9 frames of 64x64, 0.56 s at 16 fps")
    assert difference.startswith("PSNR of 5 frames: ")


def test_a_clip_is_the_same_as_itself_and_other_sizes_are_no_error(server: ComfyServer) -> None:
    graph = still("nano_first", 5, 8.0)
    assert compared(server, "nano_first", "nano_first", graph).texts(COMPARE)[-1].endswith("the same in all 5 frames")
    graph |= still("nano_last", 5, 8.0)
    graph["large"] = node(
        "ImageScale", image=["nano_last1", 0], upscale_method="area", width=97, height=33, crop="disabled"
    )
    graph["nano_last2"]["inputs"]["image"] = ["large", 0]
    run = compared(server, "nano_first", "nano_last", graph)
    assert run.status == "success", run.error
    assert run.texts(COMPARE)[-1].endswith("of different sizes, so no PSNR")
    assert run.outputs[COMPARE]["wan_flf2v_compare"][0]["b"]["width"] == 97


@pytest.fixture(scope="module")
def sampled(server: ComfyServer) -> tuple[Any, Run, Any]:
    """The estimate before a run, the run, and the estimate after it, on a server that knows of no run."""
    for pace in server.base.rglob("pace.json"):
        pace.unlink()
    before = server.get(f"/wan_flf2v/estimate?{ASKED}")
    graph = single_nodes()
    graph[SAMPLER]["inputs"]["seed"] = 9081726  # of no other test, whose result the host may have kept
    graph[ENDS] = node(
        "WanFLF2VEnds", images=[DECODE, 0], fit="crop", repair="report", reach=8, remove_flash=False,
        first_image=[FIRST, 0], last_image=[LAST, 0],
    )  # fmt: skip
    run = server.run(graph)
    assert run.status == "success", run.error
    return before, run, server.get(f"/wan_flf2v/estimate?{ASKED}")


def test_time_is_unknown_until_a_run_has_shown_it(server: ComfyServer, sampled: tuple[Any, Run, Any]) -> None:
    before, run, after = sampled
    assert "seconds" not in before
    assert before["tokens"] == after["tokens"] == 3 * 4 * 4
    assert 0 < before["least"] <= before["need"] < before["total"]
    assert after["measured"]
    assert 0 < after["seconds"] < 60
    twice = server.get(f"/wan_flf2v/estimate?{ASKED.replace('steps=3', 'steps=6')}")
    assert twice["seconds"] == pytest.approx(2 * after["seconds"])
    longer = server.get(f"/wan_flf2v/estimate?{ASKED.replace('length=9', 'length=17')}")
    assert not longer["measured"]
    assert longer["seconds"] > after["seconds"]
    other = server.get(f"/wan_flf2v/estimate?{ASKED.replace('nano.safetensors', 'nano%20(bundled)')}")
    assert "seconds" not in other, "another model's pace"
    assert "s/step, " in run.texts(SAMPLER)[-1]
    assert "FLOP/s" in run.texts(SAMPLER)[-1]
    if before["device"] == "CPU":
        assert "%" not in run.texts(SAMPLER)[-1], "nobody knows what this CPU does at best"


@pytest.mark.parametrize("asked", ["length=10", "width=65", "steps=x", "model_name=..%2F..%2Fsecret"])
def test_what_can_not_be_is_said_in_a_line(server: ComfyServer, asked: str) -> None:
    status, told = request(server, f"/wan_flf2v/estimate?{asked}&{ASKED}")
    assert status == 200
    assert asked.partition("=")[0] in told["problem"]
    assert "Traceback" not in told["problem"]


def test_a_spoiled_file_of_paces_is_as_good_as_none(server: ComfyServer, sampled: tuple[Any, Run, Any]) -> None:
    (path,) = server.base.rglob("pace.json")
    good = path.read_text()
    for spoiled in ("", "[]", '{"CPU": 3}', '{"CPU | x": {"1x1x1": 1}}', good.replace("9x64", "8x64")):
        path.write_text(spoiled)
        assert "seconds" not in server.get(f"/wan_flf2v/estimate?{ASKED}")
    path.write_text(good)
    assert "seconds" in server.get(f"/wan_flf2v/estimate?{ASKED}")


def test_ends_come_as_pairs_of_pictures_with_figures(server: ComfyServer, sampled: tuple[Any, Run, Any]) -> None:
    (clip,) = sampled[1].outputs[ENDS]["wan_flf2v_ends"]
    assert [pair["frame"] for pair in clip["pairs"]] == [row["frame"] for row in clip["given"]] == [0, 8]
    image, shown = (Image.open(io.BytesIO(view(server, clip["pairs"][0][name]))) for name in ("image", "shown"))
    assert image.size == shown.size == (64, 64)
    assert image.tobytes() == Image.open(server.base / "input" / "nano_first.png").convert("RGB").tobytes()
    assert clip["given"][0]["psnr_db"] > 15


def test_examples_are_copied_beside_what_is_somebodys_own(server: ComfyServer) -> None:
    own = server.base / "input" / "first.png"
    before = own.read_bytes() if own.exists() else None
    own.write_bytes(b"somebody's own")
    try:
        status, names = request(server, "/wan_flf2v/examples", post=True)
        assert status == 200
        assert own.read_bytes() == b"somebody's own"
        assert names["first.png"] == "wan_flf2v_first.png"
        for name, file in (("wan_flf2v_first.png", "real_first.png"), ("last.png", "real_last.png")):
            assert (server.base / "input" / name).read_bytes() == (PACK / "demo" / file).read_bytes()
        assert request(server, "/wan_flf2v/examples", post=True)[1] == names, "another press copies nothing more"
        assert request(server, "/wan_flf2v/examples", post=True, Origin="http://elsewhere.example")[0] == 403
    finally:
        own.unlink()
        if before is not None:
            own.write_bytes(before)
