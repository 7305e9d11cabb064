"""WaveSpeedAI v3: wan-flf2v as its document describes it, and the account calls around it."""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime, timezone
from typing import Any

from .gmi import need_json
from .messages import Answer, Refused, Request
from .odd import page
from .state import Job, State, image_facts

MODEL = "wavespeed-ai/wan-flf2v"
SIZES = ("832*480", "480*832", "1280*720", "720*1280")
FIELDS = {
    "first_image": str,
    "last_image": str,
    "prompt": str,
    "negative_prompt": str,
    "duration": int,
    "size": str,
    "num_inference_steps": int,
    "guidance_scale": (int, float),
    "seed": int,
    "enable_safety_checker": bool,
}
RANGES = {"duration": (5, 10), "num_inference_steps": (1, 40), "guidance_scale": (0, 20), "seed": (-1, 2147483647)}


def envelope(data: Any, code: int = 200, message: str = "success") -> Answer:
    return Answer.of({"code": code, "message": message, "data": data})


def stamp(seconds: float) -> str:
    """ISO time with nine digits after the point, as the service writes it."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}789Z"


def moment(text: Any) -> float:
    """Seconds since 1970 of an ISO time that names its zone."""
    if not isinstance(text, str):
        raise Refused(400, "created_after and created_before are ISO times")
    try:
        told = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refused(400, "created_after and created_before are ISO times") from None
    if told.tzinfo is None:
        raise Refused(400, "the time has no zone")
    return told.timestamp()


def check(state: State, body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, dict):
        raise Refused(400, "the body must be an object")
    for name, value in body.items():
        if name not in FIELDS:
            raise Refused(400, f"unknown parameter {name}")
        kind = FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Refused(400, f"{name} has the wrong type")
    for name, (low, high) in RANGES.items():
        if name in body and not low <= body[name] <= high:
            raise Refused(400, f"{name} must be {low} to {high}")
    if body.get("size", SIZES[0]) not in SIZES:
        raise Refused(400, f"size must be one of {', '.join(SIZES)}")
    facts = []
    for name in ("first_image", "last_image"):
        url = body.get(name, "")
        found = re.fullmatch(r"https?://[^/]+/uploads/([\w.-]+)", url)
        upload = state.uploads.get(found[1]) if found else None
        if not url:
            raise Refused(400, f"{name} is required")
        if not upload or not upload["data"]:
            raise Refused(400, f"{name}: the media URL cannot be reached")
        facts.append({"form": "url", **image_facts(upload["data"], name)})
    return facts


def submit(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    body = need_json(request)
    job = state.new_job("wavespeed", body, check(state, body))
    first = job.steps[0]
    if isinstance(first, dict) and first.get("at_submit"):
        return envelope(view(state, job))
    return envelope({**view(state, job, advance=False), "status": "created", "outputs": [], "has_nsfw_contents": []})


def view(state: State, job: Job, advance: bool = True) -> dict[str, Any]:
    word, changes = job.look(advance)
    done = word == "completed"
    record: dict[str, Any] = {
        "id": job.id,
        "model": MODEL,
        "outputs": [state.file_url(job)] if done else [],
        "urls": {"get": f"http://127.0.0.1:{state.ports['api']}/api/v3/predictions/{job.id}/result"},
        "has_nsfw_contents": [False] if done else [],
        "status": word,
        "created_at": stamp(job.created),
        "error": "",
        "timings": {"inference": 61234 if done else 0},
    }
    for name, value in changes.items():
        if name != "at_submit":
            record["status" if name == "shown_as" else name] = value
    return record


def result(state: State, request: Request, job_id: str) -> Answer:
    state.check_key(request, "wavespeed")
    return envelope(view(state, state.job(job_id, "wavespeed")))


def listing(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    body = need_json(request)
    number, size = body.get("page"), body.get("page_size")
    if type(number) is not int or number < 1 or type(size) is not int or not 1 <= size <= 100:
        raise Refused(400, "page and page_size (1 to 100) are required")
    jobs = [job for job in state.jobs.values() if job.provider == "wavespeed"]
    if body.get("model") not in (None, "", MODEL):
        jobs = []
    jobs = sorted(jobs, key=lambda job: -job.created)
    jobs = [job for job in jobs if state.now() - job.created < 7 * 86400]
    if after := body.get("created_after"):
        jobs = [job for job in jobs if job.created >= moment(after)]
    if before := body.get("created_before"):
        jobs = [job for job in jobs if job.created <= moment(before)]
    items = [view(state, job, advance=False) for job in jobs[(number - 1) * size : number * size]]
    for item in items:
        item.pop("urls")
    items, beside = page(state.settings["list_style"], items)
    return envelope({"page": number, "page_size": size, "total": len(jobs), "items": items, **beside})


def delete(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    ids = need_json(request).get("ids", [])
    return envelope({"deleted_count": len([state.jobs.pop(name, None) for name in ids])})


def balance(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    return envelope({"balance": state.settings["balance"]})


def models(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    schema = {"type": "object", "properties": {name: {} for name in FIELDS}}
    row = {"model_id": MODEL, "type": "image-to-video", "base_price": 0.3, "formula": "0.3", "api_schema": schema}
    return envelope([row, {"model_id": "other/model", "type": "text-to-image", "base_price": 0.01}])


def price(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    body = need_json(request)
    if body.get("model_id") != MODEL or not isinstance(body.get("inputs"), dict):
        raise Refused(400, "model_id and inputs are required")
    inputs = body["inputs"]
    amount = {5: 0.3, 10: 0.45}.get(inputs.get("duration", 5), 0.3)
    amount += 0.1 if inputs.get("size", "") in SIZES[2:] else 0.0
    return envelope({"model_id": MODEL, "price": amount, "discounted_price": amount, "currency": "USD"})


def billings(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    body = need_json(request)
    if type(body.get("page")) is not int or not 1 <= body.get("page_size", 0) <= 100:
        raise Refused(400, "page and page_size (1 to 100) are required")
    jobs = [job for job in state.jobs.values() if job.provider == "wavespeed"]
    items = [
        {
            "uuid": f"bill-{job.id}", "access_key_id": "77730_1", "billing_type": "deduct", "price": 0.3,
            "created_at": stamp(job.created), "order": {"state": "done", "price": 0.3},
            "prediction": {"uuid": job.id, "model_uuid": MODEL, "status": "completed"},
        }
        for job in sorted(jobs, key=lambda job: -job.created)
    ]  # fmt: skip
    return envelope({"page": 1, "items": items, "total": len(jobs)})


def _new_upload(state: State, kind: str, data: bytes) -> str:
    token = f"{secrets.token_hex(8)}.{kind.rsplit('/', 1)[-1]}"
    upload = {"type": kind, "data": data, "provider": "wavespeed", "time": state.now(), "at": time.monotonic()}
    with state.lock:
        state.uploads[token] = upload
    return token


def _public(state: State, token: str) -> str:
    host = state.settings["upload_host"] or f"http://127.0.0.1:{state.ports['storage']}"
    return f"{host}/uploads/{token}"


def upload_binary(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    found = re.match(r'multipart/form-data; *boundary="?([^";]+)', request.headers.get("content-type", ""))
    if not found:
        raise Refused(400, "multipart/form-data is required")
    parts = request.body.split(b"--" + found[1].encode())
    for part in parts[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        told = re.search(rb'name="file"; *filename="([^"]+)"', head)
        if told:
            data = data[:-2]
            facts = image_facts(data, "file")
            token = _new_upload(state, f"image/{str(facts['format']).lower()}", data)
            name = told[1].decode()
            return envelope(
                {"type": "image", "download_url": _public(state, token), "filename": name, "size": len(data)}
            )
    raise Refused(400, "the form has no field file with a file name")


def upload_ticket(state: State, request: Request) -> Answer:
    state.check_key(request, "wavespeed")
    if not state.settings["wavespeed_tickets"]:
        raise Refused(404, "page not found")
    body = need_json(request)
    if not isinstance(body.get("filename"), str) or type(body.get("size")) is not int or body["size"] < 1:
        raise Refused(400, "filename and size are required")
    kind = body.get("content_type") or "application/octet-stream"
    token = _new_upload(state, kind, b"")
    state.uploads[token]["size"] = body["size"]
    state.uploads[token]["headers"] = {"content-type": kind, "x-amz-tagging": "ttl=7d"}
    signed = f"http://127.0.0.1:{state.ports['storage']}/put/{token}?X-Amz-Signature={secrets.token_hex(16)}"
    headers = {"Content-Type": kind, "x-amz-tagging": "ttl=7d"}
    upload = {"method": "PUT", "url": signed, "headers": headers, "expires_at": stamp(state.now() + 900)}
    return envelope({"upload": upload, "download_url": _public(state, token)})
