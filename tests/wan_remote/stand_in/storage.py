"""The file hosts of both clouds, on a port of their own: signed downloads and uploads. A key has no business here."""

from __future__ import annotations

import base64
import hashlib
import re

from .messages import Answer, Refused, Request
from .state import State


def watch(state: State, request: Request) -> None:
    """Note what must never be sent to another host."""
    for name in ("authorization", "cookie", "x-organization-id"):
        if name in request.headers:
            state.forbid(f"{request.method} {request.path} carried {name}")


def get_file(state: State, request: Request, name: str) -> Answer:
    job = state.jobs.get(name)
    if job is None or request.raw_path != f"/files/{name}.mp4?X-Goog-Signature={job.signature}":
        raise Refused(403, "SignatureDoesNotMatch")
    data = job.data
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "ETag": etag, "x-goog-hash": f"md5={md5}"}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not wanted or request.headers.get("if-range", etag) != etag:
        return Answer(200, data, headers)
    start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1)
    if start >= len(data):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    part = data[start : stop + 1]
    headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    return Answer(206, part, headers)


def thumbnail(state: State, request: Request, name: str) -> Answer:
    state.forbid(f"the thumbnail of {name} was read")
    return Answer(200, b"\xff\xd8\xff\xe0 no video", {"Content-Type": "image/jpeg"})


def put_file(state: State, request: Request, token: str) -> Answer:
    upload = state.uploads.get(token)
    if upload is None:
        raise Refused(403, "SignatureDoesNotMatch")
    expected = upload.get("headers", {"content-type": upload["type"]})
    for name, value in expected.items():
        if request.headers.get(name) != value:
            raise Refused(403, f"SignatureDoesNotMatch: {name}")
    if len(request.body) != upload.get("size", len(request.body)):
        raise Refused(400, "EntityTooLarge")
    upload["data"] = request.body
    return Answer(200, b"", {})


def get_upload(state: State, request: Request, token: str) -> Answer:
    upload = state.uploads.get(token)
    if upload is None:
        raise Refused(404, "not found")
    return Answer(200, upload["data"], {"Content-Type": upload["type"]})


def elsewhere(state: State, request: Request) -> Answer:
    """A host nobody should follow a redirect to; where a test lets it be followed, it gives the newest result."""
    if request.path.startswith("/elsewhere/file/") and state.jobs:
        job = list(state.jobs.values())[-1]
        return Answer(200, job.data, {"Content-Type": "video/mp4"})
    return Answer.of({"request_id": "elsewhere", "status": "queued"})
