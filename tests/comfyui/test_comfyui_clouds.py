"""The cloud nodes in a real ComfyUI, against a stand-in of both clouds: one bill whatever happens, no key anywhere."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from comfy_server import PACK, ComfyServer
from nano_graph import Graph, node
from PIL import Image

if str(PACK) not in sys.path:
    sys.path.append(str(PACK))

from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY, StandIn  # noqa: E402
from wan_local import video  # noqa: E402

GMI, VIDEO, IMAGES = "3", "5", "6"
SECOND, BUSY, PATIENCE = 1.0, 1.0, 60.0
KEYS = {"GMI_API_KEY": GMI_KEY, "WAVESPEED_API_KEY": WAVESPEED_KEY}
SECRETS = (GMI_KEY, WAVESPEED_KEY, "X-Goog-Signature", "X-Amz-Signature")
BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]{400,}={0,2}")


@pytest.fixture(scope="module")
def base(new_base: Callable[..., Path]) -> Path:
    return new_base("clouds")


@pytest.fixture(scope="module")
def clouds(base: Path) -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def online(clouds: StandIn, base: Path) -> Iterator[ComfyServer]:
    with ComfyServer(base, ["--verbose", "DEBUG"], environment=clouds.environment) as running:
        yield running


@pytest.fixture
def cloud(clouds: StandIn, base: Path) -> StandIn:
    """Both clouds as if nobody had been there, and nobody who remembers them: a list that lacks what was made there
    proves nothing, and an uploaded image that is gone is refused."""
    clouds.reset()
    private = base / "user" / "__wan_flf2v"
    if private.exists():
        private.rename(private.with_name(f"__before_{time.time_ns()}"))  # still looked through for secrets
    clouds.settings(frames=9)
    clouds.always("gmi", "success")
    clouds.always("wavespeed", "completed")
    return clouds


def gmi(**changes: Any) -> dict[str, Any]:
    given = {"prompt": "a walk", "video_length": 5, "prompt_extend": False, "seed": 1, **changes}
    return node("WanFLF2VGMI", first_image=["1", 0], last_image=["2", 0], **given)


def wavespeed(**changes: Any) -> dict[str, Any]:
    given = {"prompt": "a walk", "negative_prompt": "", "duration": 5, "size": "832*480", "num_inference_steps": 30}
    given |= {"guidance_scale": 5.0, "seed": 1, "enable_safety_checker": True, **changes}
    return node("WanFLF2VWaveSpeed", first_image=["1", 0], last_image=["2", 0], **given)


def graph(maker: dict[str, Any], *more: dict[str, Any]) -> Graph:
    made: Graph = {"1": node("LoadImage", image="real_first.png"), "2": node("LoadImage", image="real_last.png")}
    for index, part in enumerate((maker, *more)):
        made[f"3{index}" if index else GMI] = part
        key = f"5{index}" if index else VIDEO
        made[key] = node(
            "SaveVideo", video=[f"3{index}" if index else GMI, 1], filename_prefix="cloud", format="auto", codec="auto"
        )
    return made


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(("name", "maker"), [("gmi", gmi), ("wavespeed", wavespeed)])
def test_a_cloud_makes_a_clip_that_is_not_encoded_again(
    online: ComfyServer, cloud: StandIn, name: str, maker: Callable[..., dict[str, Any]]
) -> None:
    asked = graph(maker(seed=-1, prompt=f"{name} first"))
    asked[IMAGES] = node("SaveImage", images=[GMI, 0], filename_prefix=f"frames_{name}")
    run = online.run(asked)
    assert run.status == "success", run.error
    (kept,) = (online.base / "output" / "wan_flf2v" / name).glob("*.mp4")
    (job,) = cloud.jobs()
    assert kept.stem == job["id"]
    (row,) = run.outputs[VIDEO]["images"]
    saved = online.base / "output" / row["subfolder"] / row["filename"]
    assert packets(saved) == packets(kept)
    stills = [online.base / "output" / file["filename"] for file in run.outputs[IMAGES]["images"]]
    frames = video.read(kept)[0].numpy() * 255.0
    assert len(stills) == len(frames) == 9
    difference = max(np.abs(np.asarray(Image.open(p)) - f).max() for p, f in zip(stills, frames, strict=True))
    print(f"{name}: {len(frames)} frames, largest difference to the file's {difference:.1f} of 255")
    assert difference <= 1.0
    (preview,) = run.outputs[GMI]["images"]
    assert (preview["filename"], preview["type"]) == (kept.name, "output")
    seed = job["body"].get("seed", job["body"].get("payload", {}).get("seed"))
    height, width = frames.shape[1:3]
    assert run.texts(GMI)[-1].startswith(f"9 frames of {width}x{height}, ")
    assert job["id"] in run.texts(GMI)[-1]
    assert f"seed {seed}" in run.texts(GMI)[-1]
    assert not run.texts(VIDEO), "a file that is copied is not written frame by frame"


def test_three_at_once_take_the_time_of_one(online: ComfyServer, cloud: StandIn) -> None:
    for name, last in (("gmi", "success"), ("wavespeed", "completed")):
        cloud.always(name, "processing", last, seconds=2.0)
    alone = online.run(graph(gmi(prompt="alone")))
    three = online.run(graph(gmi(prompt="one"), wavespeed(prompt="two"), gmi(prompt="three")))
    assert three.status == "success", three.error
    took = [run.events[-1][0] for run in (alone, three)]
    print(f"one cloud node {took[0]:.1f} s, three at once {took[1]:.1f} s")
    assert cloud.accepted() == 4
    jobs = cloud.jobs()[1:]
    assert max(job["start"] for job in jobs) < min(job["end"] for job in jobs)
    assert took[1] < 2 * took[0] + 2


STOPS: dict[str, tuple[Callable[..., dict[str, Any]], str, dict[str, Any], int]] = {
    "uploading": (wavespeed, "wavespeed.ticket", {"kind": "hang", "seconds": 4.0}, 0),
    "submitting": (gmi, "gmi.submit", {"kind": "delay", "seconds": 0.7}, 1),
    "polling": (gmi, "gmi.status", {"kind": "hang", "seconds": 4.0}, 1),
    "waiting between polls": (gmi, "gmi.status", {"kind": "pass"}, 1),
    "downloading": (gmi, "file", {"kind": "drip", "step": 1000, "seconds": 0.2}, 1),
}


def stop_once(reached: Callable[[], bool], server: ComfyServer, after: float = 0.0) -> list[float]:
    """Press stop some seconds after a run has reached something. The list gets the moment of it."""
    pressed: list[float] = []

    def press() -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        time.sleep(after)
        pressed.append(time.monotonic())
        server.interrupt()

    threading.Thread(target=press, daemon=True).start()
    return pressed


@pytest.mark.parametrize("stage", STOPS)
def test_stop_is_honoured_and_the_same_graph_collects_the_job(online: ComfyServer, cloud: StandIn, stage: str) -> None:
    maker, route, fault, accepted = STOPS[stage]
    if "waiting" in stage:
        cloud.plan("gmi", "queued", "success")
    cloud.faults(route, fault)
    asked = graph(maker(prompt=f"stop while {stage}"))
    pressed = stop_once(lambda: bool(cloud.records(route)), online, 0.3)
    run = online.run(asked)
    waited = time.monotonic() - pressed[0]
    print(f"stop while {stage}: {run.status} after {waited:.2f} s")
    assert run.status == "interrupted", run.error
    assert waited < SECOND + BUSY
    assert run.texts(GMI)[-1].startswith("stopped")
    assert cloud.accepted() == accepted
    cloud.faults(route)
    cloud.always("gmi", "success")
    again = online.run(asked)
    assert again.status == "success", again.error
    assert cloud.accepted() == 1


def test_the_same_inputs_cost_nothing(online: ComfyServer, cloud: StandIn) -> None:
    asked = graph(gmi(prompt="twice"))
    assert online.run(asked).status == "success"
    again = online.run(asked)
    assert GMI in again.cached
    asked["9"] = node("ImageInvert", image=["2", 0])
    asked["10"] = node("ImageInvert", image=["9", 0])
    asked[GMI]["inputs"]["last_image"] = ["10", 0]  # the same pixels by another way: ComfyUI runs the node again
    third = online.run(asked)
    assert third.status == "success", third.error
    assert GMI not in third.cached
    assert cloud.posts() == 1
    assert "not paid for again" in third.texts(GMI)[-1]


def test_a_file_that_was_deleted_is_brought_again_and_not_paid_for(online: ComfyServer, cloud: StandIn) -> None:
    """The host keeps what a node gave, and would look for the file where it is no more."""
    asked = graph(gmi(seed=77))
    assert online.run(asked).status == "success"
    (job,) = cloud.jobs()
    kept = online.base / "output" / "wan_flf2v" / "gmi" / f"{job['id']}.mp4"
    kept.unlink()
    asked[VIDEO]["inputs"]["filename_prefix"] = "elsewhere"
    run = online.run(asked)
    assert run.status == "success", run.error
    assert kept.is_file()
    collected = {"1": node("WanFLF2VFetchResult", provider="gmi", request_id=job["id"])}
    assert online.run(collected).status == "success"
    kept.unlink()
    assert online.run(collected).status == "success"
    assert kept.is_file()
    assert cloud.posts() == 1


def test_what_can_not_be_bought_is_refused_by_the_queue(online: ComfyServer, cloud: StandIn) -> None:
    cases = [
        (gmi(prompt="  "), "prompt", "prompt is empty"),
        (gmi(video_length=11), "video_length", "10"),
        (gmi(seed=2**31), "seed", "2147483647"),
        (wavespeed(size="1280x720"), "size", "1280*720"),
        (wavespeed(duration=11), "duration", "10"),
        (wavespeed(num_inference_steps=41), "num_inference_steps", "40"),
        (wavespeed(guidance_scale=20.5), "guidance_scale", "20"),
    ]
    for maker, name, part in cases:
        status, answer = online.queue(graph(maker))
        assert status == 400, maker
        (error,) = answer["node_errors"][GMI]["errors"]
        assert error["extra_info"]["input_name"] == name
        assert part in json.dumps(error, ensure_ascii=False)
    assert cloud.records() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video_length": 7}, "video_length=7 can't be made by GMI Cloud; use 5 or 10 seconds"),
        ({"video_length": ["91", 0]}, "video_length=7 can't be made by GMI Cloud; use 5 or 10 seconds"),
        ({"prompt": ["92", 0]}, "prompt is empty and GMI Cloud needs one; say what happens between the images"),
    ],
)
def test_what_only_the_run_can_know_is_told_before_the_images_are_made(
    online: ComfyServer, cloud: StandIn, change: dict[str, Any], said: str
) -> None:
    asked = graph(gmi(**change))
    asked["1"] = node("EmptyImage", width=64, height=64, batch_size=1, color=len(said))  # in no cache
    asked["91"], asked["92"] = node("PrimitiveInt", value=7), node("PrimitiveString", value=" ")
    run = online.run(asked)
    (error,) = run.of("execution_error")
    assert (error["node_id"], error["exception_message"].strip()) == (GMI, said)
    assert error["exception_type"] == "wan_remote.InvalidRequest"
    assert "1" not in {data["node"] for data in run.of("executing")}
    assert cloud.records() == []


def pressed_again(info: dict[str, Any], inputs: dict[str, Any], moment: int) -> dict[str, Any]:
    """What the page sends at the next Run: a number with a control is drawn anew. A seed has one unless told not to."""
    values = dict(inputs)
    for name, (kind, *rest) in info["input"]["required"].items():
        options = rest[0] if rest else {}
        if kind == "INT" and options.get("control_after_generate", name in ("seed", "noise_seed")):
            values[name] = moment
    return values


@pytest.mark.parametrize("kind", ["WanFLF2VGMI", "WanFLF2VWaveSpeed"])
def test_run_stop_run_of_a_fresh_node_is_paid_once(online: ComfyServer, cloud: StandIn, kind: str) -> None:
    info = online.get(f"/object_info/{kind}")[kind]
    fresh = {name: rest[0]["default"] for name, (_, *rest) in info["input"]["required"].items() if "default" in rest[0]}
    fresh |= {"prompt": "fresh", "negative_prompt": ""} if kind == "WanFLF2VWaveSpeed" else {"prompt": "fresh"}
    asked = graph(node(kind, first_image=["1", 0], last_image=["2", 0], **fresh))
    cloud.plan("gmi", "queued", "success")
    cloud.plan("wavespeed", "processing", "completed")

    stop_once(lambda: cloud.accepted() > 0, online)
    assert online.run(asked).status == "interrupted"
    asked[GMI]["inputs"] |= pressed_again(info, fresh, 111)
    again = online.run(asked)
    assert again.status == "success", again.error
    assert cloud.accepted() == 1


def listed(base: Path, count: int) -> Graph:
    """A graph with a list of first images and prompts, as core reads them from a folder, and one last image for all."""
    folder = base / "input" / f"list_of_{count}"
    folder.mkdir(exist_ok=True)
    for number in range(count):
        frame = np.full((72, 128, 3), (number * 12, 255 - number * 12, 128), np.uint8)
        Image.fromarray(frame).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"clip {number}")
    asked = graph(gmi(prompt=["1", 1]))
    asked["1"] = node("LoadImageTextDataSetFromFolder", folder=folder.name)
    asked["7"], asked["8"] = node("PreviewAny", source=["1", 1]), node("PreviewAny", source=[GMI, 2])
    return asked


def test_a_list_of_twenty_arrives_in_order_at_an_account_that_takes_two(online: ComfyServer, cloud: StandIn) -> None:
    cloud.settings(room=2)
    run = online.run(listed(online.base, 20))
    assert run.status == "success", run.error
    assert cloud.accepted() == 20
    asked = {job["id"]: job["body"]["prompt"] for job in cloud.jobs()}
    prompts, ids = (run.outputs[key]["text"] for key in ("7", "8"))
    assert [asked[request_id] for request_id in ids] == prompts
    assert len(set(prompts)) == 20
    assert [row["filename"] for row in run.outputs[GMI]["images"]] == [f"{request_id}.mp4" for request_id in ids]
    saved = [online.base / "output" / row["subfolder"] / row["filename"] for row in run.outputs[VIDEO]["images"]]
    kept = [online.base / "output" / "wan_flf2v" / "gmi" / f"{request_id}.mp4" for request_id in ids]
    assert [packets(path) for path in saved] == [packets(path) for path in kept]
    texts = run.texts(GMI)
    print(texts[len(texts) // 2], texts[-1], f"{run.events[-1][0]:.0f} s for 20 clips", sep="\n\n")
    assert any(re.match(r"[0-9]+ of 20 done, [12] in the cloud, [0-9]+ waiting\n", text) for text in texts)
    assert [line.split(":")[0] for line in texts[-1].splitlines()] == [str(number) for number in range(1, 21)]
    starts = sorted((job["start"], 1) for job in cloud.jobs()) + sorted((job["end"], -1) for job in cloud.jobs())
    at_once = np.cumsum([change for _, change in sorted(starts)])
    assert at_once.max() == 2


def test_a_failure_in_a_list_loses_no_other_clip(online: ComfyServer, cloud: StandIn) -> None:
    asked = listed(online.base, 3)
    cloud.faults("gmi.submit", {"kind": "answer", "status": 400, "json": {"error": "the prompt is not liked"}})
    run = online.run(asked)
    assert run.status == "error"
    [error] = run.of("execution_error")
    said = error["exception_message"].strip().splitlines()
    print("\n".join(said))
    assert said[0].startswith("1 of 3 clips failed; what is here (2) is kept and costs nothing more")
    assert re.match(r"[123]: GMI Cloud refused the request: the prompt is not liked", said[1])
    assert error["exception_type"] == "wan_remote.SomeFailed"
    assert run.texts(GMI)[-1].startswith("2 of 3 done, 1 failed\n")
    assert cloud.accepted() == 2
    again = online.run(asked)
    assert again.status == "success", again.error
    assert cloud.accepted() == 3
    assert again.texts(GMI)[-1].count("not paid for again") == 2


def test_a_list_with_a_mistake_in_it_is_not_sent_at_all(online: ComfyServer, cloud: StandIn) -> None:
    asked = listed(online.base, 3)
    (online.base / "input" / "list_of_3").rename(online.base / "input" / "list_with_a_mistake")
    (online.base / "input" / "list_with_a_mistake" / "1.txt").write_text("  ")
    asked["1"]["inputs"]["folder"] = "list_with_a_mistake"
    run = online.run(asked)
    said = run.of("execution_error")[0]["exception_message"].strip()
    assert re.match(r"clip [123] of 3: prompt is empty and GMI Cloud needs one; .* Nothing was sent", said)
    asked["2"] = listed(online.base, 20)["1"]
    asked[GMI]["inputs"]["prompt"] = "one for all"
    run = online.run(asked)
    said = run.of("execution_error")[0]["exception_message"].strip()
    assert said.startswith("first_image is a list of 3 and last_image one of 20, and each clip is paid for")
    assert cloud.posts() == 0


def test_a_stop_ends_a_whole_list(online: ComfyServer, cloud: StandIn) -> None:
    cloud.settings(room=2)
    cloud.always("gmi", "processing")
    stop_once(lambda: cloud.accepted() >= 2, online)
    asked = listed(online.base, 5)
    run = online.run(asked)
    assert run.status == "interrupted"
    said = run.texts(GMI)[-1]
    assert re.match(r"stopped; clips that are here: 0 of 5, and in the cloud: [12]: queue the same inputs again", said)
    cloud.settings(room=0)
    cloud.always("gmi", "success")
    cloud.control(finish="success")
    again = online.run(asked)
    assert again.status == "success", again.error
    assert cloud.accepted() == 5


def test_a_wrong_key_is_told_without_showing_it(online: ComfyServer, cloud: StandIn) -> None:
    cloud.control(keys={"gmi": ["another"]})
    run = online.run(graph(gmi(prompt="wrong key")))
    assert run.status == "error"
    said = run.of("execution_error")[0]["exception_message"].strip()
    print(said)
    assert "GMI_API_KEY" in said
    assert GMI_KEY not in json.dumps(run.of("execution_error"))
    assert cloud.accepted() == 0


def test_results_are_fetched_and_accounts_are_asked(online: ComfyServer, cloud: StandIn) -> None:
    assert online.run(graph(gmi(prompt="to fetch"))).status == "success"
    (job,) = cloud.jobs()
    (online.base / "output" / "wan_flf2v" / "gmi" / f"{job['id']}.mp4").unlink()
    fetch = {"1": node("WanFLF2VFetchResult", provider="gmi", request_id=job["id"])}  # alone, with nothing behind it
    run = online.run(fetch)
    assert run.status == "success", run.error
    assert cloud.posts() == 1
    assert run.texts("1")[-1].startswith("9 frames of ")
    assert [row["filename"] for row in run.outputs["1"]["images"]] == [f"{job['id']}.mp4"]
    for request_id, provider in (
        (job["id"], "wavespeed"),
        ("no-such-request", "gmi"),
        ("../../models", "gmi"),
        (" ", "gmi"),
    ):
        fetch["1"]["inputs"].update(provider=provider, request_id=request_id)
        wrong = online.run(fetch)
        assert wrong.status == "error"
        assert wrong.texts("1")[-1:] in ([], ["failed"])
        said = wrong.of("execution_error")[0]["exception_message"].strip()
        print(f"fetch {request_id} from {provider}: {said}")
        assert "\n" not in said
    answers = {}
    for index, (provider, what) in enumerate(
        (p, w) for p, ws in (("gmi", ("requests", "models", "model")), ("wavespeed", ("balance", "price"))) for w in ws
    ):
        done = online.run({"1": node("WanFLF2VAccount", provider=provider, what=what)})
        assert done.status == "success", (index, done.error)
        answers[what] = json.loads(done.outputs["1"]["text"][0])
        assert json.loads(done.texts("1")[-1]) == answers[what]
        assert all(line.startswith("    ") for line in done.texts("1")[-1].splitlines()), "not as code"
    assert answers["requests"][0]["id"] == job["id"]
    assert "Wan-AI_Wan2.1-FLF2V-14B-720P" in answers["models"]
    assert answers["balance"]["balance"] == 12.5
    assert answers["price"]["price"] > 0


def test_no_key_and_no_signed_address_is_anywhere(online: ComfyServer, cloud: StandIn) -> None:
    """After everything above: logs, history, queue, schemas, and every file below the server's folder."""
    texts = {path: online.get_text(path) for path in ("/history", "/queue", "/object_info")}
    with urllib.request.urlopen(f"http://127.0.0.1:{online.port}/internal/logs", timeout=60) as answer:
        texts["/internal/logs"] = answer.read().decode()
    texts["log"] = online.log()
    for place, text in texts.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {place}"
    seen = 0
    for path in online.base.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            seen += 1
            for secret in SECRETS:
                assert secret.encode() not in data, f"{secret} in {path}"
            if path.suffix in (".json", ".log"):
                assert not BASE64_RUN.search(data), path
    print(f"{seen} files and {len(texts)} texts looked through")
    assert seen > 20
    assert list((online.base / "user").glob("__*/jobs/*.json"))


def test_kill_between_submission_and_first_look(online: ComfyServer, cloud: StandIn, base: Path) -> None:
    """kill -9, a restart, the same graph: one submission in all, and the video."""
    asked = graph(gmi(prompt="killed"))
    status, _ = online.queue(asked)
    assert status == 200
    deadline = time.monotonic() + PATIENCE
    jobs = base / "user" / "__wan_flf2v" / "jobs"
    while '"submitted"' not in "".join(path.read_text() for path in jobs.glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    online.kill(signal.SIGKILL)
    assert not cloud.records("gmi.status")
    online.start()
    run = online.run(asked)
    assert run.status == "success", run.error
    assert (cloud.posts(), cloud.accepted()) == (1, 1)
    (job,) = cloud.jobs()
    assert (base / "output" / "wan_flf2v" / "gmi" / f"{job['id']}.mp4").is_file()


def test_runs_are_named(online: ComfyServer) -> None:
    """The nodes say on what they spend: never an API node of the host's own, which would get its account token."""
    info = online.get("/object_info")
    for name in ("WanFLF2VGMI", "WanFLF2VWaveSpeed", "WanFLF2VFetchResult", "WanFLF2VAccount"):
        assert not info[name].get("api_node")
        assert "auth_token" not in json.dumps(info[name].get("input", {})).lower()
