"""WaveSpeedAI's v3 API for ``wavespeed-ai/wan-flf2v``.

Source: the model's page at wavespeed.ai/docs; the calls around it from the pages on uploads, predictions and balance.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..command import program
from ..errors import InvalidRequest
from ..images import Frame
from ..job import Job
from ..prices import Price, PriceList
from ..request import Request, check_switch, check_text, check_whole
from ..transport import Answer, Call
from .base import LISTED, OK, Option, Place, Provider, Question, Reply
from .moments import moment_of
from .outcomes import status_of, video_among
from .reading import a_dict, a_list, a_number, a_text, any_of
from .texts import reason, status_word, whole_text

PRICED = ("duration", "size", "num_inference_steps", "guidance_scale", "enable_safety_checker")
MODERATED_CODE = "1200"
CODE, LARGEST_CODE = re.compile(r"[0-9]{1,4}"), 9999
PRICED_DURATIONS = (5, 10)  # seconds, in its price list
SMALL, LARGE = ("832*480", "480*832"), ("1280*720", "720*1280")

log = logging.getLogger("wan_remote")


@dataclass(frozen=True, kw_only=True, eq=False)
class WaveSpeedRequest(Request):
    """A clip from WaveSpeedAI.

    Attributes:
        prompt, negative_prompt: may be empty.
        duration: seconds, 5..10 (the price list knows 5 and 10).
        size: "832*480", "480*832", "1280*720" or "720*1280".
        num_inference_steps: 1..40.
        guidance_scale: 0..20.
        enable_safety_checker: the cloud's content filter.
    """

    prompt: str = ""
    negative_prompt: str = ""
    duration: int = 5
    size: str = "832*480"
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    enable_safety_checker: bool = True

    provider: ClassVar[str] = "wavespeed"
    label: ClassVar[str] = "WaveSpeedAI"
    model: ClassVar[str] = "wavespeed-ai/wan-flf2v"
    addresses: ClassVar[bool] = True
    SIZES: ClassVar[tuple[str, ...]] = (*SMALL, *LARGE)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("negative_prompt", self.negative_prompt)
        check_whole("duration", self.duration, 5, 10)
        if self.duration not in PRICED_DURATIONS:
            log.warning(
                "duration=%d stands in WaveSpeedAI's document but not in its price list, which knows 5 and 10; "
                "%s wavespeed price tells what it would cost",
                self.duration,
                program(),
            )
        if self.size not in self.SIZES:
            raise InvalidRequest(f"size={self.size!r} is not offered by WaveSpeedAI; use {', '.join(self.SIZES)}")
        check_whole("num_inference_steps", self.num_inference_steps, 1, 40)
        scale = self.guidance_scale
        good = isinstance(scale, int | float) and not isinstance(scale, bool) and math.isfinite(scale)
        if not good or not 0 <= scale <= 20:
            raise InvalidRequest(f"guidance_scale={scale!r} is out of range; use 0 to 20")
        check_switch("enable_safety_checker", self.enable_safety_checker)

    @property
    def parameters(self) -> dict[str, Any]:
        return {**super().parameters, "guidance_scale": float(self.guidance_scale)}  # 5 and 5.0 are the same wish

    @classmethod
    def clip_of(cls, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        width, height = parameters.get("size", cls.size).split("*")
        return int(width), int(height), parameters.get("duration", cls.duration)


class WaveSpeed(Provider):
    request = WaveSpeedRequest
    options = (
        Option("negative", "negative_prompt", "what to stay away from", "TEXT"),
        Option("duration", "duration", "seconds, 5 to 10 (default: %(default)s)"),
        Option("size", "size", f"{', '.join(WaveSpeedRequest.SIZES)} (default: %(default)s)"),
        Option("steps", "num_inference_steps", "1 to 40 (default: %(default)s)"),
        Option("guidance", "guidance_scale", "0 to 20 (default: %(default)s)"),
        Option("no_safety_checker", "enable_safety_checker", "switch the cloud's content filter off"),
    )
    base, base_variable = "https://api.wavespeed.ai/api/v3", "WAVESPEED_BASE_URL"
    site, key_variable = "https://wavespeed.ai/accesskey", "WAVESPEED_API_KEY"
    id_field = "id"
    forms = ("url",)
    image_bytes = 8_000_000
    prices = PriceList(
        date="2026-11",
        source="https://wavespeed.ai/docs/docs-api/wavespeed-ai/wan-flf2v",
        rows=tuple(
            Price(dollars=dollars, when={"duration": (duration,), "size": sizes})
            for sizes, of_size in ((SMALL, (0.30, 0.45)), (LARGE, (0.40, 0.60)))
            for duration, dollars in zip(PRICED_DURATIONS, of_size, strict=True)
        ),
    )
    first_poll, least_pause = 5.0, 5.0  # it asks for five seconds between two looks at a video
    remembers = 7 * 86400.0
    failure_note = " (WaveSpeedAI refunds failed jobs within three hours)"
    moderation_note = f"its safety checker (enable_safety_checker) can be switched off, or {Provider.moderation_note}"

    def submission(self, parameters: Mapping[str, Any], seed: int, first: str, last: str) -> Call:
        names = (
            "prompt", "negative_prompt", "duration", "size", "num_inference_steps", "guidance_scale",
            "enable_safety_checker",
        )  # fmt: skip
        body = {"first_image": first, "last_image": last, **{name: parameters[name] for name in names}, "seed": seed}
        return Call(method="POST", path=f"/{self.model}", body=body)

    def status(self, request_id: str) -> Call:
        return Call(method="GET", path=f"/predictions/{request_id}/result")

    def listing(self, page: int = 1) -> Call | None:
        return Call(
            method="POST", path="/predictions", body={"page": page, "page_size": LISTED, "model": self.model}
        )  # fmt: skip

    def upload_ticket(self, name: str, frame: Frame) -> Call:
        body = {"filename": f"{name}.{frame.kind}", "size": len(frame.data), "content_type": frame.mime}
        return Call(method="POST", path="/media/uploads", body=body)

    def upload_form(self, name: str, frame: Frame) -> Call:
        """The older way."""
        file = (f"{name}.{frame.kind}", frame.data, frame.mime)
        return Call(method="POST", path="/media/upload/binary", file=file, read=60.0)

    def place(self, data: Any) -> Place:
        row = a_dict(data)
        upload = a_dict(row.get("upload"))
        headers = {str(name): str(value) for name, value in a_dict(upload.get("headers")).items()}
        return Place(url=upload.get("url"), headers=headers, address=row.get("download_url"))

    def questions(self, inputs: Mapping[str, Any]) -> Mapping[str, Question]:
        models = Call(method="GET", path="/models")
        priced = {name: value for name, value in inputs.items() if name in PRICED}
        price = Call(method="POST", path="/model/price", body={"model_id": self.model, "inputs": priced})
        newest = {"page": 1, "page_size": LISTED, "sort": "created_at DESC"}
        return {
            "models": Question(call=models, read=lambda data: [str(row.get("model_id")) for row in _rows(data)]),
            "model": Question(call=models, read=self._own_model),
            "balance": Question(call=Call(method="GET", path="/balance")),
            "price": Question(call=price),
            "billings": Question(call=Call(method="POST", path="/billings/search", body=newest), read=_billed),
        }

    def _own_model(self, data: Any) -> dict[str, Any]:
        return next((row for row in _rows(data) if row.get("model_id") == self.model), {})

    def quoted(self, data: Any) -> float | None:
        row = a_dict(data)
        discounted = a_number(row.get("discounted_price"))
        return a_number(row.get("price")) if discounted is None else discounted

    def unwrap(self, answer: Answer) -> Reply:
        envelope = a_dict(answer.json())
        code, status = envelope.get("code"), answer.status
        if isinstance(code, str) and CODE.fullmatch(code):
            code = int(code)
        if status == OK and isinstance(code, int) and not isinstance(code, bool) and code != OK:
            # HTTP and envelope may disagree: both have to say 200.
            status = code if 0 <= code <= LARGEST_CODE else 500
        text = reason({"error": envelope.get("error")}) if status == OK else reason(envelope) or whole_text(answer)
        return Reply(status=status, data=envelope.get("data"), text=text, answer=answer)

    def job(self, record: Any) -> Job:
        row = a_dict(record)
        word, outputs = a_text(row.get("status")), a_list(row.get("outputs"))
        urls = [a_text(item) or a_text(a_dict(item).get("url")) for item in outputs]
        error = a_text(row.get("error"))
        flagged = any_of(row.get("has_nsfw_contents"))
        milliseconds = a_number(a_dict(row.get("timings")).get("inference")) or a_number(row.get("executionTime"))
        url = video_among(urls)
        refused = MODERATED_CODE in error.split() or f"{MODERATED_CODE}:" in error
        status, known = status_of(word, url)
        return Job(
            id=self.usable_id(row),
            status=status,
            word=status_word(word),
            known=known,
            url=url,
            message=error,
            flagged=True if refused else flagged,
            withheld=refused or (flagged is True and not url),
            seconds=None if milliseconds is None else milliseconds / 1000.0,
            created=moment_of(row.get("created_at")),
            queued=moment_of(row.get("queued_at")),
            updated=moment_of(row.get("updated_at")),
            model=a_text(row.get("model")) or None,
        )

    def listed(self, data: Any) -> Sequence[Any] | None:
        rows = data.get("items") if isinstance(data, dict) else data
        return rows if isinstance(rows, list) else None


def _rows(data: Any) -> list[dict[str, Any]]:
    return [a_dict(row) for row in a_list(data)]


def _billed(data: Any) -> list[dict[str, Any]]:
    """What was really paid, newest first: which request, of which model, and the price in dollars."""
    return [_bill(row) for row in _rows(a_dict(data).get("items"))]


def _bill(row: Mapping[str, Any]) -> dict[str, Any]:
    made = a_dict(row.get("prediction"))
    found = {
        "request_id": a_text(made.get("uuid")),
        "model": a_text(made.get("model_uuid")),
        "type": a_text(row.get("billing_type")),
        "price": a_number(row.get("price")),
        "created": a_text(row.get("created_at")),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
