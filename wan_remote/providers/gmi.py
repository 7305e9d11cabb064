"""GMI Cloud's request queue for ``Wan-AI_Wan2.1-FLF2V-14B-720P``.

Source: the model's usage guide at docs.gmicloud.ai; where production is seen to differ from it, both forms are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from ..errors import InvalidRequest, KeyInvalid
from ..images import Frame
from ..job import Job
from ..request import Request, check_switch
from ..transport import Answer, Call
from .base import OK, Option, Place, Provider, Question, Reply
from .moments import moment_of
from .outcomes import status_of, video_among
from .reading import a_dict, a_list, a_text, an_int, says_more
from .texts import reason, status_word, whole_text

BASE64_BUDGET = 6_000_000  # characters of both images in one body
ORGANISATION = "GMI_ORG_ID"  # for people with several organisations


@dataclass(frozen=True, kw_only=True, eq=False)
class GMIRequest(Request):
    """A clip from GMI Cloud, always 1280x720.

    Attributes:
        prompt: not empty.
        video_length: seconds, 5 or 10.
        prompt_extend: let the cloud write the prompt out.
    """

    video_length: int = 5
    prompt_extend: bool = False

    provider: ClassVar[str] = "gmi"
    label: ClassVar[str] = "GMI Cloud"
    model: ClassVar[str] = "Wan-AI_Wan2.1-FLF2V-14B-720P"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise InvalidRequest("prompt is empty and GMI Cloud needs one; say what happens between the images")
        if type(self.video_length) is not int or self.video_length not in (5, 10):
            raise InvalidRequest(f"video_length={self.video_length!r} can't be made by GMI Cloud; use 5 or 10 seconds")
        check_switch("prompt_extend", self.prompt_extend)

    @classmethod
    def clip_of(cls, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        return 1280, 720, parameters.get("video_length", cls.video_length)


class GMI(Provider):
    request = GMIRequest
    options = (
        Option("video_length", "video_length", "seconds, 5 or 10 (default: %(default)s)"),
        Option("prompt_extend", "prompt_extend", "let the cloud write the prompt out"),
    )
    base, base_variable = "https://console.gmicloud.ai/api/v1/ie/requestqueue", "GMI_BASE_URL"
    site, key_variable = "https://console.gmicloud.ai", "GMI_API_KEY"
    id_field = "request_id"
    forms = ("base64", "data", "url")
    image_bytes = BASE64_BUDGET // 2 * 3 // 4
    first_poll, least_pause = 3.0, 3.0

    def headers(self, environ: Mapping[str, str]) -> dict[str, str]:
        value = (environ.get(ORGANISATION) or "").strip()
        if not all("!" <= character <= "~" for character in value):
            raise KeyInvalid(f"{ORGANISATION} has characters that no organisation id has; copy it again")
        return {"X-Organization-ID": value} if value else {}

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

    def upload_ticket(self, name: str, frame: Frame) -> Call:
        return Call(method="POST", path="/apikey/upload-url", body={"file_type": frame.kind})

    def place(self, data: Any) -> Place:
        row = a_dict(data)
        return Place(url=row.get("upload_url"), address=row.get("public_url"))

    def questions(self, inputs: Mapping[str, Any]) -> Mapping[str, Question]:
        models = Call(method="GET", path="/apikey/models")
        return {
            "models": Question(call=models, read=lambda data: a_dict(data).get("model_ids", [])),
            "model": Question(call=Call(method="GET", path=f"/apikey/models/{quote(self.model, safe='')}")),
        }

    def unwrap(self, answer: Answer) -> Reply:
        data = answer.json()
        text = "" if answer.status == OK else reason(data) or whole_text(answer)
        return Reply(status=answer.status, data=data, text=text, answer=answer)

    def job(self, record: Any) -> Job:
        row = a_dict(record)
        outcome, payload, word = a_dict(row.get("outcome")), a_dict(row.get("payload")), a_text(row.get("status"))
        url = _video(outcome)
        status, known = status_of(word, url)
        return Job(
            id=self.usable_id(row),
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

    def wraps_refusal(self, reply: Reply) -> bool:
        """It wraps refusals of the machine behind it into a 500: ``Backend error (400)``."""
        return reply.status == 500 and "backend error (4" in reply.text.lower()


def _video(outcome: Mapping[str, Any]) -> str:
    """The video's address: as documented, or as production has it. Never the thumbnail's, which stands beside it."""
    urls = [a_text(item) or a_text(a_dict(item).get("url")) for item in a_list(outcome.get("media_urls"))]
    return a_text(outcome.get("video_url")) or video_among(urls)
