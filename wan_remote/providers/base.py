"""What a cloud has to say of itself, and what all of them share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import (
    AuthError,
    BadResponse,
    Forbidden,
    ModelUnavailable,
    NoCredit,
    RateLimited,
    Rejected,
    RemoteError,
    TooLarge,
    UnexpectedRedirect,
)
from ..job import Job
from ..keys import WHERE, Secret
from ..redact import redact
from ..transport import Answer

OK = 200
MODERATION = ("content policy", "content_policy", "moderation", "moderated", "nsfw", "safety")
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
LISTED = 100  # requests asked for at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request of a cloud's API, without address and key."""

    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer with the cloud's envelope taken off.

    Attributes:
        status: what it amounts to as an HTTP status: 200 only if everything is well.
        data: what was asked for.
        text: why it was refused, as the cloud says it, or the error that it tells with a 200; not cleaned.
        answer: the whole of it.
    """

    status: int
    data: Any
    text: str
    answer: Answer


class Provider(Protocol):
    """A cloud. All methods are pure functions of their arguments."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def forms(self) -> tuple[str, ...]:
        """How pictures may be sent: "base64", "data", "url", tried in this order."""
        ...

    @property
    def picture_bytes(self) -> int:
        """Budget of one picture."""
        ...

    @property
    def first_poll(self) -> float:
        """Seconds after the submission."""
        ...

    @property
    def least_pause(self) -> float:
        """Seconds between two polls."""
        ...

    def submission(self, parameters: Mapping[str, Any], seed: int, first: str, last: str) -> Call: ...
    def status(self, request_id: str) -> Call: ...
    def listing(self, page: int = 1) -> Call | None:
        """Requests, newest first; None where there are no more pages."""
        ...

    def more(self, data: Any) -> bool:
        """Whether a page of a list says that there are others behind it."""
        ...

    def models(self) -> Call: ...
    def price(self, inputs: Mapping[str, Any]) -> Call | None:
        """Asks what a clip would cost; None where that can't be asked."""
        ...

    def quoted(self, data: Any) -> float | None:
        """US dollars of an answer to :meth:`price`."""
        ...

    def unwrap(self, answer: Answer) -> Reply: ...
    def job(self, record: Any) -> Job: ...
    def listed(self, data: Any) -> Sequence[Any] | None:
        """The rows of a list; None for anything else, which proves nothing about what was made."""
        ...

    def failure_note(self) -> str: ...
    def moderation_note(self) -> str: ...


def refusal(provider: Provider, reply: Reply, secret: Secret) -> RemoteError:
    """The error for an answer that is not a success."""
    text = redact(reply.text, (secret.reveal(),)) or "without a reason"
    status, label = reply.status, provider.label
    if reply.answer.redirects:
        return UnexpectedRedirect(
            f"{label} sent the request elsewhere ({status}); it was not followed, try again later"
        )
    if status == 401:
        site = WHERE[provider.name][1]
        return AuthError(f"{label} does not take the key from {secret.source} ({text}); make a new one at {site}")
    if status == 402:
        return NoCredit(f"{label}: {text}; top up the account at {WHERE[provider.name][1]}")
    if status == 403:
        return Forbidden(f"{label} does not allow this: {text}")
    if status == 404:
        return ModelUnavailable(f"{label} does not offer {provider.model} to this account: {text}")
    if status == 413:
        return TooLarge(f"{label} finds the pictures too large: {text}; use smaller or less noisy ones")
    if status == 429:
        return RateLimited(f"{label} has had too many requests: {text}; try again later")
    if 400 <= status < 500 or wraps_refusal(reply):
        return Rejected(f"{label} refused the request: {text}")
    return BadResponse(f"{label} answered {status}: {text}; try again later")


def wraps_refusal(reply: Reply) -> bool:
    """GMI Cloud wraps refusals of the machine behind it into a 500: ``Backend error (400)``."""
    return reply.status == 500 and "backend error (4" in reply.text.lower()


def is_moderation(text: str) -> bool:
    return any(word in text.lower() for word in MODERATION)


# -- reading what may be anything -----------------------------------------------------------------------------------


def a_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def a_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def a_number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON knows no limit
        return None
    return number if math.isfinite(number) else None


def any_of(value: Any) -> bool | None:
    """Whether any of a list of switches, or the one that stands in its place, is on; None if there is none."""
    told = {SWITCHES.get(str(row).lower()) for row in (value if isinstance(value, list) else [value])} - {None}
    return True in told if told else None


def told_id(record: Any) -> Any:
    """What a record of either cloud gives for an id, whatever it is; None if it gives none."""
    row = a_dict(record)
    return row.get("request_id", row.get("id"))


MORE = ("has_more", "hasMore", "next", "next_page", "next_page_token", "nextPageToken", "next_cursor", "cursor")
COUNTS = ("total", "total_count", "count")


def says_more(data: Any, rows: int) -> bool:
    """Whether a list without documented pages says, in one of the usual ways, that it is not all."""
    row = a_dict(data)
    return any(row.get(name) for name in MORE) or any((an_int(row.get(name)) or 0) > rows for name in COUNTS)


def an_int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
