"""The one request that costs money: sent at most once for a job that may exist.

Its end is one of three. The cloud took it: its id is on disk before anything else happens. The cloud refused it:
nothing was made. Or nobody knows: then the job is looked for in the cloud's list, adopted if exactly one fits, and
otherwise left alone until the list has had time to show it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .errors import BadResponse, RateLimited, RemoteError, SubmissionUnknown, TooLarge
from .images import Frame
from .job import Job
from .journal import INTENT, REJECTED, SUBMITTED, Entry
from .providers.base import LISTED, OK, Call, Reply, refusal, wraps_refusal
from .retry import LONGEST_ASKED, no_answer, once, pause, too_long
from .session import Session
from .transport import Failure, Lost
from .uploads import forget, upload
from .watch import check, sleep, to_the_end

READ = 60.0  # seconds of silence; twice that in all
CONNECTS = 3
RATE_LIMITS = 6
SEEN_AFTER = 120.0  # seconds after which the cloud's list shows every job
BEFORE, AFTER = 60.0, 180.0  # seconds around the intent in which its job was made, by the cloud's clock
WITHIN_DAMAGED = 7 * 86400.0  # the same for an entry whose time is lost
LOOKS, BETWEEN_LOOKS = 3, 3.0
MOST_PAGES = 50
IMAGE_WORDS = ("image", "frame")


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
            first, last = await _in_form(session, form, frames)
            continue
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
            entry, state=INTENT, intent_at=session.clock.time(), submissions=entry.submissions + 1, message=""
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
            return _accepted(session, intent, outcome), outcome
        if isinstance(outcome, _Nobody):
            return intent, outcome
        said = outcome if isinstance(outcome, RemoteError) else outcome.error
        refused = session.journal.update(
            intent, state=REJECTED, ended_at=session.clock.time(), message=str(said), word=str(reply.status)
        )
        return refused, outcome

    entry, found = await to_the_end(work)
    if isinstance(found, RemoteError):
        raise found
    return entry, found


def _accepted(session: Session, entry: Entry, job: Job) -> Entry:
    return session.journal.update(
        entry, state=SUBMITTED, id=job.id, submitted_at=session.clock.time(), word=job.word, recovered=False
    )


def _judge(session: Session, reply: Reply) -> Job | _Later | _OtherForm | _Nobody | RemoteError:
    """What an answer to a submission means.

    Raises:
        BadResponse: an id that can't be one.
    """
    status, provider = reply.status, session.provider
    if status == OK or status in (201, 202):
        record = reply.data if isinstance(reply.data, dict) else {}
        told = record.get("request_id", record.get("id"))
        if told is None or told == "":
            return _Nobody()
        return provider.job(record)
    error = refusal(provider, reply, session.secret)
    wait = reply.answer.retry_after
    if status == 429 or (status == 503 and wait is not None):
        if wait is not None and wait > LONGEST_ASKED:
            return too_long(session, wait, reply)
        if status == 503:
            error = RateLimited(f"{provider.label} is overloaded; try again later")
        return _Later(seconds=wait or 0.0, error=error)
    about_pictures = status in (400, 422) and any(word in reply.text.lower() for word in IMAGE_WORDS)
    if about_pictures or (isinstance(error, TooLarge) and len(provider.forms) > 1):
        return _OtherForm(error=error)
    if status in (301, 302, 303):  # may mean: done, look there
        return _Nobody()
    if 300 <= status < 500 or wraps_refusal(reply):
        return error
    return _Nobody()


# -- looking for a job whose id was lost -----------------------------------------------------------------------------


async def reconcile(session: Session, entry: Entry, *, just_sent: bool = False) -> tuple[Entry, Job]:
    """Find the job of an ``intent`` in the cloud's list and adopt it.

    Args:
        session: cloud, key, journal.
        entry: in state ``intent``.
        just_sent: whether this very run sent it: it is not sent again then, however long that took.

    Raises:
        SubmissionUnknown: none or several fit, or the list can't be had.
        NotThere: none fits and the list has had time to show it: the same inputs may be sent.
    """
    label = session.provider.label
    session.watch.stage(f"it is not known whether {label} took the submission; looking for it in its list")
    problem = "its list does not show it yet"
    for look in range(LOOKS):
        if look:
            await sleep(BETWEEN_LOOKS, session.watch, session.clock)
        listing = await _listing(session, entry)
        if listing is None:
            problem = "its list can't be had"
            continue
        outcome = await to_the_end(_claim(session, entry, listing))
        if isinstance(outcome, tuple):
            return outcome
        problem = outcome
        if "several" in problem:
            break
        age = session.clock.time() - entry.intent_at
        if age > SEEN_AFTER and not just_sent and listing.whole:
            raise NotThere("the cloud has no such job")
    raise SubmissionUnknown(
        f"it is not known whether {label} took the submission: {problem}. Nothing was sent a second time; queue the "
        f"same inputs again in {SEEN_AFTER / 60:.0f} minutes, and the job is picked up or sent anew"
    )


class NotThere(Exception):  # noqa: N818
    """No job was made of an intent: it may be sent again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listing:
    """A cloud's list back to before a submission.

    Attributes:
        jobs: newest first.
        ahead: seconds of the cloud's clock before ours.
        whole: whether the list was read as far back as the submission.
    """

    jobs: tuple[Job, ...]
    ahead: float
    whole: bool


async def _listing(session: Session, entry: Entry) -> _Listing | None:
    """The list, page by page, as far back as needed; None if it can't be had."""
    jobs: list[Job] = []
    ahead = 0.0
    for page in range(1, MOST_PAGES + 1):
        call = session.provider.listing(page)
        if call is None:
            return _Listing(jobs=tuple(jobs), ahead=ahead, whole=True)
        found = await once(session, call)
        if isinstance(found, Lost) or found.status != OK or found.answer.json() is None:
            return None
        if found.answer.date is not None:
            ahead = found.answer.date - session.clock.time()
        rows = session.provider.listed(found.data)
        jobs += _jobs(session, rows)
        oldest = min((job.created for job in jobs if job.created is not None), default=None)
        if len(rows) < LISTED or (oldest is not None and oldest < _window(entry, ahead)[0]):
            return _Listing(jobs=tuple(jobs), ahead=ahead, whole=True)
    return _Listing(jobs=tuple(jobs), ahead=ahead, whole=False)


def _claim(session: Session, entry: Entry, listing: _Listing) -> Callable[[], tuple[Entry, Job] | str]:
    """Take the one job that fits, or say why not; nobody else takes one meanwhile."""

    def work() -> tuple[Entry, Job] | str:
        with session.journal.claiming():
            others = [
                other
                for other in session.journal.entries()
                if other.provider == entry.provider and other.fingerprint != entry.fingerprint
            ]
            claimed = {other.id for other in others if other.id}
            jobs = {job.id: job for job in listing.jobs if job.id not in claimed and _fits(entry, job, listing)}
            if not jobs:
                return "its list does not show it" + ("" if listing.whole else ", as far back as it was read")
            found = next(iter(jobs.values()))
            if len(jobs) > 1 or any(other.state == INTENT and _fits(other, found, listing) for other in others):
                return f"its list shows several that it could be ({', '.join(list(jobs)[:3])})"
            return _accepted(session, entry, found), found

    return work


def _jobs(session: Session, rows: Sequence[object]) -> Iterator[Job]:
    for row in rows:
        try:
            yield session.provider.job(row)
        except BadResponse:
            continue


def _window(entry: Entry, ahead: float) -> tuple[float, float]:
    """Between which moments of the cloud's clock the job of an intent was made."""
    sent = entry.intent_at + ahead
    return sent - (WITHIN_DAMAGED if entry.recovered else BEFORE) - 1.0, sent + AFTER


def _fits(entry: Entry, job: Job, listing: _Listing) -> bool:
    """Same model, made about when it was sent, and, where the cloud repeats them, the same prompt and seed."""
    if job.model not in (None, entry.model) or job.created is None:
        return False
    if job.prompt is not None and job.prompt != entry.parameters.get("prompt"):
        return False
    if job.seed is not None and job.seed != entry.seed:
        return False
    first, last = _window(entry, listing.ahead)
    return first <= job.created <= last


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
    """An entry ready to be sent anew after all: nothing known of the cloud."""
    return replace(entry, id="", word="", message="", submitted_at=0.0, ended_at=0.0)


__all__ = ["NotThere", "reconcile", "redrawn", "submit"]
