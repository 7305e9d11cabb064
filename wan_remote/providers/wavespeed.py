"""WaveSpeedAI's v3 API for ``wavespeed-ai/wan-flf2v``.

Source: the model's page at wavespeed.ai/docs; the calls around it from the pages on uploads, predictions and balance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadResponse
from ..job import Job, safe_id
from ..request import WaveSpeedRequest
from ..transport import Answer
from .base import LISTED, OK, Call, Reply, a_dict, a_list, a_number, a_text, any_of
from .moments import moment_of
from .outcomes import status_of, video_among
from .texts import reason, status_word, whole_text

PRICED = ("duration", "size", "num_inference_steps", "guidance_scale", "enable_safety_checker")
MODERATED_CODE = "1200"
CODE, LARGEST_CODE = re.compile(r"[0-9]{1,4}"), 9999


class WaveSpeed:
    name, label, model = "wavespeed", "WaveSpeedAI", WaveSpeedRequest.model
    forms = ("url",)
    picture_bytes = 8_000_000
    first_poll, least_pause = 5.0, 5.0  # it asks for five seconds between two looks at a video

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

    def models(self) -> Call:
        return Call(method="GET", path="/models")

    def balance(self) -> Call:
        return Call(method="GET", path="/balance")

    def billings(self) -> Call:
        """What was really paid, newest first."""
        body = {"page": 1, "page_size": LISTED, "sort": "created_at DESC"}
        return Call(method="POST", path="/billings/search", body=body)

    def billed(self, data: Any) -> list[dict[str, Any]]:
        """Rows of :meth:`billings`: which request, of which model, and the price in dollars."""
        return [_billed(a_dict(row)) for row in a_list(a_dict(data).get("items"))]

    def price(self, inputs: Mapping[str, Any]) -> Call:
        counts = {name: value for name, value in inputs.items() if name in PRICED}
        body = {"model_id": self.model, "inputs": counts}
        return Call(method="POST", path="/model/price", body=body)

    def quoted(self, data: Any) -> float | None:
        row = a_dict(data)
        discounted = a_number(row.get("discounted_price"))
        return a_number(row.get("price")) if discounted is None else discounted

    def upload_ticket(self, name: str, size: int, mime: str) -> Call:
        """Asks where to put a picture; the answer holds ``upload`` (method, url, headers) and ``download_url``."""
        return Call(
            method="POST", path="/media/uploads", body={"filename": name, "size": size, "content_type": mime}
        )  # fmt: skip

    upload_form = "/media/upload/binary"  # the older way: the file in a form, with the key

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
        """A prediction.

        Raises:
            BadResponse: no prediction, or one with an id that can't be one.
        """
        row = a_dict(record)
        request_id = safe_id(row.get("id"))
        if request_id is None:
            raise BadResponse("WaveSpeedAI answered without a usable request id")
        word, outputs = a_text(row.get("status")), a_list(row.get("outputs"))
        urls = [a_text(item) or a_text(a_dict(item).get("url")) for item in outputs]
        error = a_text(row.get("error"))
        flagged = any_of(row.get("has_nsfw_contents"))
        milliseconds = a_number(a_dict(row.get("timings")).get("inference")) or a_number(row.get("executionTime"))
        url = video_among(urls)
        refused = MODERATED_CODE in error.split() or f"{MODERATED_CODE}:" in error
        status, known = status_of(word, url)
        return Job(
            id=request_id,
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

    def more(self, data: Any) -> bool:
        return False  # it has pages, and the one behind the last is empty

    def failure_note(self) -> str:
        return " (WaveSpeedAI refunds failed jobs within three hours)"

    def moderation_note(self) -> str:
        return "its safety checker (enable_safety_checker) can be switched off, or use other pictures or another prompt"


def _billed(row: Mapping[str, Any]) -> dict[str, Any]:
    made = a_dict(row.get("prediction"))
    found = {
        "request_id": a_text(made.get("uuid")),
        "model": a_text(made.get("model_uuid")),
        "type": a_text(row.get("billing_type")),
        "price": a_number(row.get("price")),
        "created": a_text(row.get("created_at")),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
