"""GMI Cloud's request queue for ``Wan-AI_Wan2.1-FLF2V-14B-720P``.

Source: the model's usage guide at docs.gmicloud.ai; where production is seen to differ from it, both forms are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadResponse
from ..job import Job, safe_id
from ..request import GMIRequest
from ..transport import Answer
from .base import OK, Call, Reply, a_dict, a_list, a_text, an_int, says_more
from .moments import moment_of
from .outcomes import status_of, video_among
from .texts import reason, status_word, whole_text

BASE64_BUDGET = 6_000_000  # characters of both pictures in one body


class GMI:
    name, label, model = "gmi", "GMI Cloud", GMIRequest.model
    forms = ("base64", "data", "url")
    picture_bytes = BASE64_BUDGET // 2 * 3 // 4
    first_poll, least_pause = 3.0, 3.0

    def submission(self, parameters: Mapping[str, Any], seed: int, first: str, last: str) -> Call:
        payload = {
            "prompt": parameters["prompt"],
            "first_frame_image": first,
            "last_frame_image": last,
            "video_length": parameters["video_length"],
            "prompt_extend": parameters["prompt_extend"],
            "seed": seed,
        }
        return Call(method="POST", path="/apikey/requests", body={"model": self.model, "payload": payload})

    def status(self, request_id: str) -> Call:
        return Call(method="GET", path=f"/apikey/requests/{request_id}")

    def listing(self, page: int = 1) -> Call | None:
        if page > 1:  # no pages are documented
            return None
        return Call(method="GET", path="/apikey/requests", query={"model_id": self.model})

    def models(self) -> Call:
        return Call(method="GET", path="/apikey/models")

    def one_model(self, name: str) -> Call:
        return Call(method="GET", path=f"/apikey/models/{name}")

    def upload_ticket(self, kind: str) -> Call:
        """Asks where to put a picture; the answer holds ``upload_url`` and ``public_url``."""
        return Call(method="POST", path="/apikey/upload-url", body={"file_type": kind})

    def unwrap(self, answer: Answer) -> Reply:
        data = answer.json()
        text = "" if answer.status == OK else reason(data) or whole_text(answer)
        return Reply(status=answer.status, data=data, text=text, answer=answer)

    def job(self, record: Any) -> Job:
        """A record of the queue.

        Raises:
            BadResponse: no record, or one with an id that can't be one.
        """
        row = a_dict(record)
        request_id = safe_id(row.get("request_id"))
        if request_id is None:
            raise BadResponse("GMI Cloud answered without a usable request id")
        outcome, payload, word = a_dict(row.get("outcome")), a_dict(row.get("payload")), a_text(row.get("status"))
        url = _video(outcome)
        status, known = status_of(word, url)
        return Job(
            id=request_id,
            status=status,
            word=status_word(word),
            known=known,
            url=url,
            message=reason({"error": row.get("error") or outcome.get("error")}),
            thumbnail=a_text(outcome.get("thumbnail_image_url")),
            created=moment_of(row.get("created_at")),
            queued=moment_of(row.get("queued_at")),
            updated=moment_of(row.get("updated_at")),
            model=a_text(row.get("model")) or None,
            prompt=a_text(payload.get("prompt")) or None,
            seed=an_int(payload.get("seed")),
        )

    def listed(self, data: Any) -> Sequence[Any] | None:
        """The rows of a list, whose shape is not documented."""
        if isinstance(data, dict):
            lists = (data[name] for name in ("requests", "data", "items") if isinstance(data.get(name), list))
            data = next(lists, None)
        return data if isinstance(data, list) else None

    def more(self, data: Any) -> bool:
        return says_more(data, len(self.listed(data) or ()))

    def price(self, inputs: Mapping[str, Any]) -> Call | None:
        return None  # it has no such call

    def quoted(self, data: Any) -> float | None:
        return None

    def failure_note(self) -> str:
        return ""

    def moderation_note(self) -> str:
        return "use other pictures or another prompt"


def _video(outcome: Mapping[str, Any]) -> str:
    """The video's address: as documented, or as production has it. Never the thumbnail's, which stands beside it."""
    urls = [a_text(item) or a_text(a_dict(item).get("url")) for item in a_list(outcome.get("media_urls"))]
    return a_text(outcome.get("video_url")) or video_among(urls)
