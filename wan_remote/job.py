"""One vocabulary for both clouds: what a job is and how it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .errors import InvalidRequest

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class Status(Enum):
    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a cloud says about one request.

    Attributes:
        id: the cloud's name for it.
        status: ours; a word that is not known counts as processing.
        word: the cloud's own, as far as it may be shown.
        known: whether that word is one this package knows.
        url: of the video, once there is one. Never stored: it may be signed.
        message: why it failed, as the cloud says it; not cleaned.
        flagged: whether the cloud marks any of its outputs as unsafe content; None if it does not say.
        withheld: whether its content filter gives no result for that.
        thumbnail: address of a still of the video, if there is one; like the video's it may be signed.
        seconds: what making it took, if the cloud says.
        created, queued, updated: when the cloud made the job, put it in its queue, and last changed it, seconds since
            1970, as far as it says.
        model, prompt, seed: what it was asked for, where the cloud repeats that.
    """

    id: str
    status: Status
    word: str = ""
    known: bool = True
    url: str = ""
    message: str = ""
    flagged: bool | None = None
    withheld: bool = False
    thumbnail: str = ""
    seconds: float | None = None
    created: float | None = None
    queued: float | None = None
    updated: float | None = None
    model: str | None = None
    prompt: str | None = None
    seed: int | None = None


def asked_id(text: str) -> str:
    """An id that somebody typed.

    Raises:
        InvalidRequest: it can't be one.
    """
    found = safe_id(text.strip())
    if found is None:
        raise InvalidRequest(f"request_id={text[:60]!r} is no id of a request; copy it from the node or the list")
    return found


def safe_id(value: object) -> str | None:
    """``value`` as an id that may stand in a path and a file name, or None."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if SAFE_ID.fullmatch(text) and ".." not in text else None
