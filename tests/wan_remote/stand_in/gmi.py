"""GMI Cloud's request queue, as its document for Wan-AI_Wan2.1-FLF2V-14B-720P describes it."""

from __future__ import annotations

import binascii
import secrets
from typing import Any

from .messages import Answer, Refused, Request, decode_base64
from .odd import page
from .state import Job, State, image_facts

MODEL = "Wan-AI_Wan2.1-FLF2V-14B-720P"
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpg"}
MAX_BODY = 20_000_000


def need_json(request: Request) -> Any:
    if request.content_type != "application/json":
        raise Refused(400, f"Content-Type must be application/json, not {request.content_type!r}")
    try:
        return request.json()
    except ValueError:
        raise Refused(400, "the body is not JSON") from None


def _image(state: State, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, str) or not value:
        raise Refused(400, f"invalid payload parameters: {name} must be a string")
    form = "url" if value.startswith("http") else "data" if value.startswith("data:") else "base64"
    if form not in state.settings["gmi_image_forms"]:
        raise Refused(400, f"invalid payload parameters: {name} has an unsupported image format")
    if form == "url":
        token = value.rsplit("/", 1)[-1]
        upload = state.uploads.get(token, {})
        if not upload.get("data"):
            raise Refused(400, f"invalid payload parameters: {name} cannot be reached")
        return {"form": form, **image_facts(upload["data"], name)}
    if form == "data":
        head, _, value = value.partition(",")
        if head not in ("data:image/png;base64", "data:image/jpeg;base64", "data:image/webp;base64"):
            raise Refused(400, f"invalid payload parameters: {name} is no data URI of an image")
    try:
        data = decode_base64(value)
    except (binascii.Error, ValueError):
        raise Refused(400, f"invalid payload parameters: {name} is not base64") from None
    return {"form": form, **image_facts(data, name)}


def check(state: State, body: Any) -> list[dict[str, Any]]:
    """Refuse whatever the document does not allow; give the facts of both images."""
    if not isinstance(body, dict) or set(body) != {"model", "payload"} or not isinstance(body["payload"], dict):
        raise Refused(400, "the body must be an object with model and payload")
    if body["model"] != MODEL:
        raise Refused(404, f"model {body['model']} not found or you do not have access")
    payload = body["payload"]
    known = {"prompt", "first_frame_image", "last_frame_image", "video_length", "prompt_extend", "seed"}
    for name in payload:
        if name not in known:
            raise Refused(400, f"invalid payload parameters: {name} is unknown")
    if not isinstance(payload.get("prompt"), str) or not payload["prompt"].strip():
        raise Refused(400, "invalid payload parameters: prompt is required")
    if type(payload.get("video_length", 5)) is not int or payload.get("video_length", 5) not in (5, 10):
        raise Refused(400, "invalid payload parameters: video_length must be 5 or 10")
    if type(payload.get("prompt_extend", False)) is not bool:
        raise Refused(400, "invalid payload parameters: prompt_extend must be true or false")
    seed = payload.get("seed", -1)
    if type(seed) is not int or not -1 <= seed <= 2147483647:
        raise Refused(400, "invalid payload parameters: seed must be -1 to 2147483647")
    return [_image(state, payload.get(name), name) for name in ("first_frame_image", "last_frame_image")]


def submit(state: State, request: Request) -> Answer:
    state.check_key(request, "gmi")
    if len(request.body) > MAX_BODY:
        raise Refused(413, "request body too large")
    body = need_json(request)
    job = state.new_job("gmi", body, check(state, body))
    record = view(state, job) if job.steps[0] != "queued" and _over(job) else _head(state, job, "queued")
    return Answer.of(record)


def _over(job: Job) -> bool:
    """Whether the plan says that the submit answer is already the last one."""
    return len(job.steps) > 0 and isinstance(job.steps[0], dict) and bool(job.steps[0].get("at_submit"))


def _head(state: State, job: Job, word: str) -> dict[str, Any]:
    created = int(job.created)
    times = {"created_at": created, "updated_at": int(state.now()), "queued_at": created}
    return {"request_id": job.id, "model": MODEL, "status": word, **times}


def view(state: State, job: Job, advance: bool = True) -> dict[str, Any]:
    """The record of a request as a status read gives it."""
    word, changes = job.look(advance)
    record = _head(state, job, word)
    record.update(org_id="org-1", is_public=False, qworker_id="worker-123", outcome=None)
    record["payload"] = job.body["payload"] if state.settings["gmi_echo"] else {}
    if word == "success":
        thumbnail = (
            f"http://127.0.0.1:{state.ports['storage']}/thumbnails/{job.id}.jpg?X-Goog-Signature={job.signature}"
        )
        url, form = state.file_url(job), state.settings["gmi_url_form"]
        video: dict[str, Any] = {"video_url": url}
        if form == "media_urls":
            video = {"media_urls": [{"id": "0", "url": url}]}
        elif form == "media_strings":
            video = {"media_urls": [url]}
        record["outcome"] = {**video, "thumbnail_image_url": thumbnail}
    for name, value in changes.items():
        if name != "at_submit":
            record["status" if name == "shown_as" else name] = value
    return record


def status(state: State, request: Request, job_id: str) -> Answer:
    state.check_key(request, "gmi")
    return Answer.of(view(state, state.job(job_id, "gmi")))


def listing(state: State, request: Request) -> Answer:
    state.check_key(request, "gmi")
    if set(request.query) != {"model_id"}:
        raise Refused(400, "model_id is required")
    jobs = [job for job in state.jobs.values() if job.provider == "gmi" and request.query["model_id"] == MODEL]
    records = [view(state, job, advance=False) for job in sorted(jobs, key=lambda job: -job.created)]
    if size := state.settings["list_image"]:
        images = dict.fromkeys(("first_frame_image", "last_frame_image"), "A" * size)
        records = [{**record, "payload": {**record["payload"], **images}} for record in records]
    records, beside = page(state.settings["list_style"], records)
    shape = state.settings["gmi_list_shape"]
    return Answer.of(records if shape == "list" else {shape: records, **beside})


def models(state: State, request: Request) -> Answer:
    state.check_key(request, "gmi")
    return Answer.of({"model_ids": [MODEL, "other-model-1", "other-model-2"]})


def model(state: State, request: Request, name: str) -> Answer:
    state.check_key(request, "gmi")
    if name != MODEL:
        raise Refused(404, f"model {name} not found")
    parameters = [{"name": "video_length", "type": "integer", "default": 5, "options": [5, 10]}]
    brief = "First-last-frame-to-video generation"
    return Answer.of({"model": MODEL, "org_id": "org-1", "brief_description": brief, "parameters": parameters})


def upload_url(state: State, request: Request) -> Answer:
    state.check_key(request, "gmi")
    kind = need_json(request).get("file_type")
    if kind not in TYPES:
        raise Refused(400, "file_type must be one of jpeg, jpg, png, mp4, mp3, wav")
    token = f"{secrets.token_hex(8)}.{kind}"
    state.uploads[token] = {"type": TYPES[kind], "data": b"", "provider": "gmi", "time": state.now()}
    base = f"http://127.0.0.1:{state.ports['storage']}"
    signed = f"{base}/put/{token}?X-Goog-Signature={secrets.token_hex(16)}"
    return Answer.of({"upload_url": signed, "public_url": f"{base}/uploads/{token}"})
