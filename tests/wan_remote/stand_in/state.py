"""What the two clouds know: keys, jobs, uploads, fault scripts, and a record of every request."""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import random
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from . import clips
from .faults import Fault
from .messages import Answer, Refused, Request

FIRST_KEYS = {"gmi": ["gmi-key-3f9a7c51e8d24b60"], "wavespeed": ["ws-key-b71d05e2a94c4f83"]}
DEFAULT_STEPS = {"gmi": ["queued", "processing", "success"], "wavespeed": ["created", "processing", "completed"]}
LAST_WORDS = {"success", "failed", "cancelled", "completed", "timeout", "deleted"}


@dataclass
class Job:
    id: str
    provider: str
    body: dict[str, Any]
    created: float
    steps: list[Any]  # status words, or records that replace fields; one per read, the last stays
    seconds: float | None  # end after this time instead of by reads
    data: bytes
    signature: str
    real_start: float = field(default_factory=time.monotonic)
    real_end: float | None = None
    reads: int = 0
    images: list[dict[str, Any]] = field(default_factory=list)

    def look(self, advance: bool = True) -> tuple[str, dict[str, Any]]:
        """The status word and the fields this read of the record overrides."""
        at = min(self.reads, len(self.steps) - 1)
        if self.seconds is not None:
            done = time.monotonic() - self.real_start >= self.seconds
            at = len(self.steps) - 1 if done else min(at, len(self.steps) - 2)
        if advance:
            self.reads += 1
        step = self.steps[at]
        word = step if isinstance(step, str) else step.get("status", "")
        if word in LAST_WORDS and self.real_end is None:
            self.real_end = time.monotonic()
        return word, ({} if isinstance(step, str) else step)


def image_facts(data: bytes, field_name: str) -> dict[str, Any]:
    try:
        return _facts(data)
    except Exception as error:
        raise Refused(400, f"invalid payload parameters: {field_name} is no image ({type(error).__name__})") from None


@functools.lru_cache(64)
def _facts(data: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        told = {"format": image.format, "mode": image.mode, "size": list(image.size)}
    return {**told, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ports: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.keys = {name: list(keys) for name, keys in FIRST_KEYS.items()}
            self.settings: dict[str, Any] = {
                "gmi_image_forms": ["base64"],  # what the model takes: base64, data, url
                "gmi_list_shape": "requests",
                "gmi_echo": True,
                "gmi_url_form": "video_url",  # video_url, media_urls, media_strings
                "wavespeed_tickets": True,  # whether the newer upload endpoint exists
                "upload_host": None,
                "frames": 81,
                "offset": 0.0,  # seconds between this machine's clock and the clouds'
                "speed": 1.0,  # seconds that pass at the clouds in one second
                "balance": 12.5,
                "list_image": 0,  # characters of each image that GMI Cloud's list repeats; 0 for those sent
                "list_style": "",  # how the lists differ from what was sent; see odd.py
                "room": 0,  # jobs that an account may have at once; 0 for any number
            }
            self.epoch = time.time()
            self.jobs: dict[str, Job] = {}
            self.uploads: dict[str, dict[str, Any]] = {}  # token -> type, data
            self.plans: dict[str, list[dict[str, Any]]] = {"gmi": [], "wavespeed": []}
            self.always: dict[str, dict[str, Any]] = {}
            self.faults: dict[str, list[Fault]] = {}
            self.chaos: dict[str, list[tuple[float, Fault]]] = {}
            self.random = random.Random(0)
            self.records: list[dict[str, Any]] = []
            self.violations: list[str] = []
            self.numbers = itertools.count(1)

    # what the endpoints ask

    def now(self) -> float:
        since = time.time() - self.epoch
        return self.epoch + since * self.settings["speed"] + self.settings["offset"]

    def check_key(self, request: Request, provider: str) -> None:
        given = request.headers.get("authorization", "")
        if given not in [f"Bearer {key}" for key in self.keys[provider]]:
            raise Refused(401, "invalid or missing API key")

    def check_room(self, provider: str) -> None:
        """An account that has as many jobs at once as it may have gets no more, and is not told for how long."""
        room = int(self.settings["room"])
        busy = [job for job in self.jobs.values() if job.provider == provider and job.real_end is None]
        if room and len(busy) >= room:
            raise Refused(429, "too many concurrent tasks")

    def new_job(self, provider: str, body: dict[str, Any], images: list[dict[str, Any]], check: bool = True) -> Job:
        with self.lock:
            if check:
                self.check_room(provider)  # with the lock held: two at once must not both find room
            queue = self.plans[provider]
            plan = queue.pop(0) if queue else self.always.get(provider, {})
            number = next(self.numbers)
            job_id = f"{provider[:2]}-{number:04d}-{secrets.token_hex(6)}"
            job = Job(
                id=plan.get("id", job_id),
                provider=provider,
                body=body,
                created=self.now(),
                steps=list(plan.get("steps") or DEFAULT_STEPS[provider]),
                seconds=plan.get("seconds"),
                data=clips.tagged(clips.clip(self.settings["frames"]), job_id),
                signature=secrets.token_hex(16),
                images=images,
            )
            if plan.get("submit"):  # the submit answer is already a read of the record
                job.steps.insert(0, plan["submit"])
            self.jobs[job.id] = job
            return job

    def job(self, job_id: str, provider: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None or job.provider != provider:
            raise Refused(404, f"request {job_id} not found")
        return job

    def file_url(self, job: Job) -> str:
        return f"http://127.0.0.1:{self.ports['storage']}/files/{job.id}.mp4?X-Goog-Signature={job.signature}"

    # faults and records

    def next_fault(self, route: str) -> Fault | None:
        with self.lock:
            script = self.faults.get(route) or []
            if script:
                fault = script[0]
                fault.times -= 1
                if fault.times == 0:
                    script.pop(0)
                return None if fault.kind == "pass" else fault
            roll = self.random.random() if route in self.chaos else 1.0
            for share, fault in self.chaos.get(route, []):
                if roll < share:
                    return fault
                roll -= share
            return None

    def remember(self, route: str, request: Request, fault: Fault | None) -> dict[str, Any]:
        record = {"route": route, "time": time.monotonic(), "fault": fault.kind if fault else None, "status": None}
        record["told"] = fault.status if fault and fault.kind == "answer" else None  # in the place of "status"
        record.update(request.describe())
        with self.lock:
            self.records.append(record)
        return record

    def forbid(self, text: str) -> None:
        with self.lock:
            self.violations.append(text)

    # what a test asks

    def command(self, body: dict[str, Any]) -> Any:
        with self.lock:
            if body.get("reset"):
                self.reset()
            self.settings.update(body.get("set", {}))
            self.keys.update(body.get("keys", {}))
            for provider, plans in body.get("plans", {}).items():
                self.plans[provider] += plans
            self.always.update(body.get("always", {}))
            for provider, count in body.get("flood", {}).items():  # other people of the account are busy
                last = [job for job in self.jobs.values() if job.provider == provider][-1]
                for _ in range(count):
                    self.new_job(provider, last.body, last.images, check=False)
            if "finish" in body:
                for job in self.jobs.values():
                    job.steps = [body["finish"]]
            for route, script in body.get("faults", {}).items():
                self.faults[route] = [Fault(**entry) for entry in script]
            if "chaos" in body:
                self.random = random.Random(body["chaos"]["seed"])
                routes = body["chaos"]["routes"]
                self.chaos = {name: [(share, Fault(**entry)) for share, entry in rows] for name, rows in routes.items()}
            return {"ok": True}

    def view(self, full: bool = False) -> dict[str, Any]:
        with self.lock:
            jobs = [
                {
                    "id": job.id,
                    "provider": job.provider,
                    "reads": job.reads,
                    "last": job.steps[-1],
                    "start": job.real_start,
                    "end": job.real_end,
                    "sha256": hashlib.sha256(job.data).hexdigest(),
                    "size": len(job.data),
                    "signature": job.signature,
                    "images": job.images,
                    "body": {name: value for name, value in _flat(job.body).items() if full or not _long(value)},
                }
                for job in self.jobs.values()
            ]
            return {
                "jobs": jobs,
                "records": self.records if full else [_short(record) for record in self.records],
                "violations": list(self.violations),
                "faults_left": {route: len(script) for route, script in self.faults.items() if script},
            }


def _flat(body: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in body.items() if k != "payload"}, **body.get("payload", {})}


def _long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > 2000


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return f"<{len(value)} characters>" if _long(value) else value


def refusal(provider: str, error: Refused) -> Answer:
    if provider == "gmi":
        return Answer.of({"error": error.message}, error.status)
    return Answer.of({"code": error.status, "message": error.message, "data": None}, error.status)
