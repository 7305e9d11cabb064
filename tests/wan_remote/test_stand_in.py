"""The stand-in refuses what the providers' documents refuse; a lenient one would prove nothing about the library."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from typing import Any

import pytest
import requests
from PIL import Image

from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY, StandIn

MODEL = "Wan-AI_Wan2.1-FLF2V-14B-720P"


@functools.cache
def image(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 36), (10, 200, 30)).save(out, kind)
    return out.getvalue()


def gmi_body(**changes: Any) -> dict[str, Any]:
    text = base64.b64encode(image()).decode()
    payload = {"prompt": "dusk", "first_frame_image": text, "last_frame_image": text, **changes}
    return {"model": MODEL, "payload": {name: value for name, value in payload.items() if value is not None}}


def gmi_submit(cloud: StandIn, body: Any, **headers: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {GMI_KEY}", **headers}
    return requests.post(cloud.gmi + "/apikey/requests", json=body, headers=headers, timeout=10)


def wavespeed(cloud: StandIn, path: str, body: Any, key: str = WAVESPEED_KEY, **more: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(cloud.wavespeed + path, json=body, headers=headers, timeout=10, **more)


def uploaded(cloud: StandIn) -> str:
    answer = wavespeed(cloud, "/media/upload/binary", None, files={"file": ("a.png", image(), "image/png")})
    return answer.json()["data"]["download_url"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"first_frame_image": None}, "first_frame_image"),
        ({"last_frame_image": "no base64!"}, "last_frame_image"),
        ({"last_frame_image": "data:image/png;base64,AAAA"}, "last_frame_image"),
        ({"first_frame_image": base64.b64encode(b"no image").decode()}, "first_frame_image"),
        ({"video_length": 7}, "video_length"),
        ({"video_length": "5"}, "video_length"),
        ({"prompt_extend": 1}, "prompt_extend"),
        ({"seed": 2147483648}, "seed"),
        ({"seed": -2}, "seed"),
        ({"negative_prompt": "x"}, "negative_prompt"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_gmi_names_the_field_it_refuses(cloud, changes, word):
    answer = gmi_submit(cloud, gmi_body(**changes))
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    assert (cloud.posts(), cloud.accepted()) == (1, 0)


def test_gmi_refuses_a_wrong_key_model_and_content_type(cloud):
    assert gmi_submit(cloud, gmi_body(), Authorization="Bearer other").status_code == 401
    assert gmi_submit(cloud, gmi_body(), Authorization=GMI_KEY).status_code == 401
    assert gmi_submit(cloud, {**gmi_body(), "model": MODEL.lower()}).status_code == 404
    assert gmi_submit(cloud, gmi_body(), **{"Content-Type": "text/plain"}).status_code == 400
    assert (cloud.posts(), cloud.accepted()) == (4, 0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": "832x480"}, "size"),
        ({"duration": 4}, "duration"),
        ({"duration": 5.5}, "duration"),
        ({"num_inference_steps": 41}, "num_inference_steps"),
        ({"guidance_scale": 20.5}, "guidance_scale"),
        ({"seed": True}, "seed"),
        ({"enable_safety_checker": "true"}, "enable_safety_checker"),
        ({"last_image": ""}, "last_image"),
        ({"first_image": "http://127.0.0.1/uploads/nothing.png"}, "first_image"),
        ({"steps": 3}, "steps"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wavespeed_names_the_field_it_refuses(cloud, changes, word):
    url = uploaded(cloud)
    answer = wavespeed(cloud, "/wavespeed-ai/wan-flf2v", {"first_image": url, "last_image": url, **changes})
    assert answer.status_code == answer.json()["code"] == 400
    assert word in answer.json()["message"]
    assert cloud.accepted() == 0


def test_wavespeed_runs_a_job_from_upload_to_file(cloud):
    url = uploaded(cloud)
    made = wavespeed(cloud, "/wavespeed-ai/wan-flf2v", {"first_image": url, "last_image": url}).json()["data"]
    words, record = [], {}
    for _ in range(3):
        headers = {"Authorization": f"Bearer {WAVESPEED_KEY}"}
        record = requests.get(made["urls"]["get"], headers=headers, timeout=10).json()["data"]
        words.append(record["status"])
    assert [made["status"], *words] == ["created", "created", "processing", "completed"]
    data = requests.get(record["outputs"][0], timeout=10).content
    assert hashlib.sha256(data).hexdigest() == cloud.jobs()[0]["sha256"]
    assert (cloud.posts("wavespeed"), cloud.accepted("wavespeed"), cloud.accepted("gmi")) == (1, 1, 0)
    assert cloud.view()["violations"] == []


def test_a_ticket_takes_its_own_headers_and_size_alone(cloud):
    ask = {"filename": "a.png", "size": len(image()), "content_type": "image/png"}
    ticket = wavespeed(cloud, "/media/uploads", ask).json()["data"]["upload"]
    assert requests.put(ticket["url"], image(), headers={"Content-Type": "image/jpg"}, timeout=10).status_code == 403
    assert requests.put(ticket["url"], b"short", headers=ticket["headers"], timeout=10).status_code == 400
    assert requests.put(ticket["url"], image(), headers=ticket["headers"], timeout=10).status_code == 200


def test_storage_signs_resumes_and_notices_a_key(cloud):
    cloud.always("gmi", "success")
    job = gmi_submit(cloud, gmi_body()).json()["request_id"]
    url = f"{cloud.storage}/files/{job}.mp4?X-Goog-Signature={cloud.jobs()[0]['signature']}"
    whole = requests.get(url, timeout=10)
    part = requests.get(url, headers={"Range": "bytes=100-", "If-Range": whole.headers["ETag"]}, timeout=10)
    assert (part.status_code, part.content) == (206, whole.content[100:])
    changed = requests.get(url, headers={"Range": "bytes=100-", "If-Range": '"other"'}, timeout=10)
    assert (changed.status_code, changed.content) == (200, whole.content)
    assert requests.get(url, headers={"Range": "bytes=99999999-"}, timeout=10).status_code == 416
    assert requests.get(url + "0", timeout=10).status_code == 403
    assert cloud.view()["violations"] == []
    requests.get(url, headers={"Authorization": "Bearer x"}, timeout=10)
    assert cloud.view()["violations"] == [f"GET /files/{job}.mp4 carried authorization"]


def test_a_fault_script_is_used_up_and_counted(cloud):
    script = [{"kind": "answer", "status": 503}, {"kind": "reset", "when": "after", "accept": True}, {"kind": "reset"}]
    cloud.faults("gmi.submit", *script)
    assert gmi_submit(cloud, gmi_body()).status_code == 503
    for made in (1, 1):
        with pytest.raises(requests.ConnectionError):
            gmi_submit(cloud, gmi_body())
        assert cloud.accepted() == made
    assert gmi_submit(cloud, gmi_body()).status_code == 200
    assert (cloud.posts(), cloud.accepted()) == (4, 2)


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "without a length"])
def test_a_cut_answer_is_cut(cloud, length):
    cloud.always("gmi", "success")
    job = gmi_submit(cloud, gmi_body()).json()["request_id"]
    url = f"{cloud.storage}/files/{job}.mp4?X-Goog-Signature={cloud.jobs()[0]['signature']}"
    cloud.faults("file", {"kind": "cut", "keep": 1000, "length": length})
    if length:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(url, timeout=10)
    else:
        assert len(requests.get(url, timeout=10).content) == 1000
    assert len(requests.get(url, timeout=10).content) > 10_000
