"""The one request that costs money: sent at most once for a job that may exist.

Its end is one of three. The cloud took it: its id is on disk before anything else happens. The cloud refused it:
nothing was made. Or nobody knows: then the job is looked for in the cloud's list; see :mod:`wan_remote.reconcile`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from .errors import BadResponse, NoUploads, RateLimited, RemoteError, TooLarge
from .images import Frame
from .job import Job
from .journal import INTENT, REJECTED, Entry
from .providers.base import OK, Call, Reply, is_moderation, refusal, told_id, wraps_refusal
from .reconcile import accepted, cloud_ahead, reconcile
from .retry import LONGEST_ASKED, no_answer, pause, too_long
from .session import Session
from .transport import Failure, Lost
from .uploads import forget, upload
from .watch import check, sleep, to_the_end

READ = 60.0  # seconds of silence; twice that in all
CONNECTS = 3
RATE_LIMITS = 6
IMAGE_WORDS = ("image", "frame")
NOT_HEARD = (408, 425, 499)  # what a gateway says when it gave up waiting; what is behind it may have gone on


@dataclass(frozen=True, kw_only=True, slots=True)
class _Later:
    """Refused for now."""

    seconds: float
    error: RemoteError


@dataclass(frozen=True, kw_only=True, slots=True)
class _OtherForm:
    """Refused for the way the pictures are sent."""

    error: RemoteError


class _Nobody:
    """Not known whether it was taken."""


async def submit(session: Session, entry: Entry, frames: tuple[Frame, Frame]) -> tuple[Entry, Job]:
    """Send ``entry`` to its cloud.

    Args:
        session: cloud, key, journal.
        entry: on disk, in state ``intent`` or ``rejected``.
        frames: both pictures, encoded.

    Returns:
        the entry with the cloud's id, on disk, and the job as the cloud first described it.

    Raises:
        SubmissionUnknown: it may have been taken; queue the same inputs again later.
        RemoteError: it was refused.
        Interrupted: stopped before it was sent, or after its id was written down.
    """
    forms, started = iter(session.provider.forms), session.clock.time()
    first, last = await _in_form(session, next(forms), frames)
    limits = connects = 0
    while True:
        check(session.watch)
        session.watch.stage(f"submitting to {session.provider.label}")
        call = session.provider.submission(entry.parameters, entry.seed, first, last)
        entry, found = await _send(session, entry, call)
        if isinstance(found, Job):
            session.watch.stage(f"{session.provider.label} took it as {found.id}")
            return entry, found
        if isinstance(found, _Nobody):
            return await reconcile(session, entry, just_sent=True)
        if isinstance(found, _OtherForm):
            form = next(forms, None)
            if form is None and forget(session, frames, before=started):  # an upload of yesterday may be gone
                form = "url"
            if form is None:
                raise found.error
            try:
                first, last = await _in_form(session, form, frames)
            except NoUploads:  # the way out does not exist; what was wrong in the first place is the news
                failed = found.error
            else:
                continue
            raise failed
        if isinstance(found, Lost):
            connects += 1
            if connects >= CONNECTS or found.failure is Failure.INSECURE:
                raise no_answer(session, found)
            await sleep(pause(connects), session.watch, session.clock)
            continue
        limits += 1
        if limits >= RATE_LIMITS:
            raise found.error
        session.watch.stage(f"{session.provider.label} is busy; trying again in {found.seconds:.0f} s")
        await sleep(found.seconds or pause(limits + 1), session.watch, session.clock)


async def _send(session: Session, entry: Entry, call: Call) -> tuple[Entry, Job | Lost | _Later | _OtherForm | _Nobody]:
    """One submission, and its outcome on disk, in one piece that no stop cuts in two."""

    def work() -> tuple[Entry, Job | Lost | _Later | _OtherForm | _Nobody | RemoteError]:
        intent = session.journal.update(
            entry,
            state=INTENT,
            intent_at=session.clock.time(),
            ahead=cloud_ahead(session),
            submissions=entry.submissions + 1,
            message="",
        )
        answer = session.api.call(call.method, call.path, body=call.body, read=READ)
        if isinstance(answer, Lost):
            if answer.failure is Failure.LOST:
                return intent, _Nobody()
            return session.journal.update(intent, state=REJECTED, ended_at=session.clock.time()), answer
        reply = session.provider.unwrap(answer)
        try:
            outcome = _judge(session, reply)
        except BadResponse as error:  # taken, under a name that can't be used
            return intent, error
        if isinstance(outcome, Job):
            return accepted(session, intent, outcome), outcome
        if isinstance(outcome, _Nobody):
            return intent, outcome
        said = outcome if isinstance(outcome, RemoteError) else outcome.error
        refused = session.journal.update(
            intent, state=REJECTED, ended_at=session.clock.time(), message=str(said), word=str(reply.status)
        )
        return refused, outcome

    entry, found = await to_the_end(work, session.watch)
    if isinstance(found, RemoteError):
        raise found
    return entry, found


def _judge(session: Session, reply: Reply) -> Job | _Later | _OtherForm | _Nobody | RemoteError:
    """What an answer to a submission means.

    Raises:
        BadResponse: an id that can't be one.
    """
    status, provider = reply.status, session.provider
    if status == OK or status in (201, 202):
        record = reply.data if isinstance(reply.data, dict) else {}
        told = told_id(record)
        if told is None or told == "":
            return _Nobody()
        return provider.job(record)
    if status in NOT_HEARD:
        return _Nobody()
    error = refusal(provider, reply, session.secret)
    wait = reply.answer.retry_after
    if status == 429 or (status == 503 and wait is not None):
        if wait is not None and wait > LONGEST_ASKED:
            return too_long(session, wait, reply)
        if status == 503:
            error = RateLimited(f"{provider.label} is overloaded; try again later")
        return _Later(seconds=wait or 0.0, error=error)
    about_pictures = status in (400, 422) and any(word in reply.text.lower() for word in IMAGE_WORDS)
    if about_pictures and is_moderation(reply.text):  # in another form they would show the same
        return error
    if about_pictures or (isinstance(error, TooLarge) and len(provider.forms) > 1):
        return _OtherForm(error=error)
    if status in (301, 302, 303):  # may mean: done, look there
        return _Nobody()
    if 300 <= status < 500 or wraps_refusal(reply):
        return error
    return _Nobody()


# -- pictures ---------------------------------------------------------------------------------------------------------


async def _in_form(session: Session, form: str, frames: tuple[Frame, Frame]) -> tuple[str, str]:
    """Both pictures as text: base64, a data address, or the address of an upload."""
    if form == "url":
        first = await upload(session, frames[0], "first")
        return first, first if frames[1].sha256 == frames[0].sha256 else await upload(session, frames[1], "last")
    texts = [base64.b64encode(frame.data).decode() for frame in frames]
    if form == "data":
        texts = [f"data:{frame.mime};base64,{text}" for frame, text in zip(frames, texts, strict=True)]
    return texts[0], texts[1]


def redrawn(entry: Entry) -> Entry:
    """An entry ready to be sent anew after all: nothing known of the cloud, but which jobs it is not."""
    earlier = (*entry.earlier, entry.id) if entry.id else entry.earlier
    return replace(entry, id="", earlier=earlier, word="", message="", submitted_at=0.0, ended_at=0.0)


__all__ = ["redrawn", "submit"]
