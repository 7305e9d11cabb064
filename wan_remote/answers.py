"""What the answer to a submission says of the job, and what its absence says."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadResponse, RemoteError
from .job import Job
from .providers import Provider
from .providers.base import OK, Reply, is_moderation, refusal
from .providers.texts import reason
from .redact import redact
from .retry import LONGEST_ASKED, no_answer, too_long
from .session import Session
from .states import Event
from .transport import Answer, Failure, Lost

TAKEN = (OK, 201, 202)
NOT_HEARD = (408, 425, 499)  # what a gateway says when it gave up waiting; what is behind it may have gone on
DONE_ELSEWHERE = (301, 302, 303)  # may mean: done, look there
IMAGE_WORDS = ("image", "frame")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one submission.

    Attributes:
        event: what happened to the job.
        job: as the cloud described it, if it was taken.
        error: what to say if that is the end.
        wait: seconds that the cloud asks for.
        said: why there is no id: what broke, or the cloud's words in place of it.
        status: of the answer; empty without one.
    """

    event: Event
    job: Job | None = None
    error: RemoteError | None = None
    wait: float | None = None
    said: str = ""
    status: str = ""


def outcome_of(session: Session, answer: Answer | Lost) -> Outcome:
    """Read the answer to a submission, or that there is none."""
    if isinstance(answer, Lost):
        if answer.failure is Failure.LOST:
            return Outcome(event=Event.LOST, said=answer.why)
        return Outcome(event=Event.UNREACHED, error=no_answer(session, answer))
    reply = session.provider.unwrap(answer)
    if reply.status in TAKEN:
        return _of_success(session, reply)
    event, error, wait = _event(session.provider, reply), refusal(session.provider, reply, session.secret), None
    if event is Event.LOST:
        return Outcome(event=event)
    if event is Event.BUSY:
        wait = answer.retry_after
        if wait is not None and wait > LONGEST_ASKED:
            error = too_long(session, wait, reply)
    return Outcome(event=event, error=error, wait=wait, status=str(reply.status))


def _event(provider: Provider, reply: Reply) -> Event:
    """What a refusal, or something like one, is; of several that hold the first, and else nobody knows."""
    status = reply.status
    about_images = status in (400, 422) and any(word in reply.text.lower() for word in IMAGE_WORDS)
    too_large = status == 413 and len(provider.forms) > 1
    meanings = (
        (status in NOT_HEARD or status in DONE_ELSEWHERE, Event.LOST),
        (status == 429 or (status == 503 and reply.answer.retry_after is not None), Event.BUSY),
        (about_images and is_moderation(reply.text), Event.REFUSED),  # in another form they would show the same
        (about_images or too_large, Event.OTHER_FORM),
        (300 <= status < 500 or provider.wraps_refusal(reply), Event.REFUSED),
    )
    return next((event for holds, event in meanings if holds), Event.LOST)


def _of_success(session: Session, reply: Reply) -> Outcome:
    record = reply.data if isinstance(reply.data, dict) else {}
    if session.provider.id_of(record) in (None, ""):
        text = redact(reason(record) or reply.text, (session.secret.reveal(),))
        return Outcome(event=Event.LOST, said=f"it said: {text}" if text else "")
    try:
        return Outcome(event=Event.TAKEN, job=session.provider.job(record))
    except BadResponse:  # taken, under a name that can't be used; its list may have the right one
        return Outcome(event=Event.LOST, said="it gave a request id that can't be used")
