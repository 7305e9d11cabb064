"""A submission whose answer was lost: its job is looked for in the cloud's list and adopted if exactly one fits.

That there is none is believed only of a list that was understood, row by row, back to before the submission. Times are
the cloud's own: this machine's clock may have been corrected since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import BadResponse, SubmissionUnknown
from .job import Job
from .journal import INTENT, SUBMITTED, Entry, same_inputs
from .keys import WHERE
from .providers.base import OK
from .retry import once
from .session import Session
from .transport import Lost
from .watch import sleep, to_the_end

SEEN_AFTER = 120.0  # seconds after which the cloud's list shows every job
BEFORE, AFTER = 60.0, 180.0  # seconds around the intent in which its job may be, by the cloud's clock
SKEW = 10.0  # seconds that a cloud's machines may differ: a job before that was not made by a later submission
UNSURE = 86400.0  # what BEFORE and AFTER are where it is not known how far the cloud's clock was from ours
DAMAGED = 7 * 86400.0  # the same for an entry whose time is lost
LOOKS, BETWEEN_LOOKS = 3, 3.0
MOST_PAGES = 50
SHORTEST_PAGE = 10  # rows; a list without pages that has fewer is not cut off


class NotThere(Exception):  # noqa: N818
    """No job was made of an intent: it may be sent again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A cloud's list back to some moment.

    Attributes:
        jobs: those with a time.
        whole: whether every job since that moment is surely among them.
    """

    jobs: tuple[Job, ...]
    whole: bool


def accepted(session: Session, entry: Entry, job: Job) -> Entry:
    """The entry with the cloud's id, on disk."""
    return session.journal.update(
        entry, state=SUBMITTED, id=job.id, submitted_at=session.clock.time(), word=job.word, recovered=False
    )


async def reconcile(session: Session, entry: Entry, *, just_sent: bool = False) -> tuple[Entry, Job]:
    """Find the job of an ``intent`` in the cloud's list and adopt it.

    Args:
        session: cloud, key, journal.
        entry: in state ``intent``.
        just_sent: whether this very run sent it: it is not sent again then, however long that took.

    Raises:
        SubmissionUnknown: none or several fit, or the list can't be had or not be trusted.
        NotThere: none fits and the list has had time to show it: the same inputs may be sent.
    """
    label = session.provider.label
    session.watch.stage(f"it is not known whether {label} took the submission; looking for it in its list")
    problem, advice = "its list can't be had", _later(session)
    for look in range(LOOKS):
        if look:
            await sleep(BETWEEN_LOOKS, session.watch, session.clock)
        listing = await read_list(session, window(session, entry)[0])
        if just_sent and entry.ahead is None and (ahead := cloud_ahead(session)) is not None:
            entry = session.journal.update(entry, ahead=ahead)
        if listing is None:
            continue
        found = await to_the_end(_claim(session, entry, listing), session.watch)
        if isinstance(found, tuple):
            session.watch.stage(f"found in the list of {label}: {found[1].id}")
            return found
        if found:
            problem = f"its list shows {_several(found)} that it could be ({', '.join(found[:3])})"
            advice = "collect the right one by its id (Fetch Result), or change the seed to have and pay for another"
            break
        late = _age(session, entry) > SEEN_AFTER
        if late and listing.whole and not just_sent:
            raise NotThere("the cloud has no such job")
        if late and not listing.whole:
            problem = "its list does not show it, as far back as it can be read"
            advice = (
                f"look for it at {WHERE[session.provider.name][1]}, queue the same inputs again later, or change the "
                "seed to have and pay for another"
            )
        else:
            problem, advice = "its list does not show it yet", _later(session)
    raise SubmissionUnknown(
        f"it is not known whether {label} took the submission: {problem}. Nothing was sent a second time; {advice}"
    )


async def read_list(session: Session, since: float) -> Listing | None:
    """The list, page by page, back to ``since`` in seconds since 1970 of the cloud's clock; None if it can't be had."""
    jobs: dict[str, Job] = {}
    unclear = False
    for page in range(1, MOST_PAGES + 1):
        call = session.provider.listing(page)
        if call is None:
            return Listing(jobs=tuple(jobs.values()), whole=len(jobs) < SHORTEST_PAGE and not unclear)
        reply = await once(session, call)
        if isinstance(reply, Lost) or reply.status != OK:
            return None
        rows = session.provider.listed(reply.data)
        if rows is None:
            return None
        fresh = [job for job in map(_reader(session), rows) if job is None or job.id not in jobs]
        dated = [job for job in fresh if job is not None and job.created is not None]
        unclear |= len(dated) < len(fresh)
        jobs |= {job.id: job for job in dated}
        times = [job.created or 0.0 for job in jobs.values()]
        newest_first = times == sorted(times, reverse=True)
        if (not rows and not unclear) or (times and newest_first and times[-1] < since):
            return Listing(jobs=tuple(jobs.values()), whole=not unclear)
        if not fresh:  # it says the same on every page
            break
    return Listing(jobs=tuple(jobs.values()), whole=False)


def _reader(session: Session) -> Callable[[object], Job | None]:
    def read(row: object) -> Job | None:
        try:
            return session.provider.job(row)
        except BadResponse:
            return None

    return read


def _claim(session: Session, entry: Entry, listing: Listing) -> Callable[[], tuple[Entry, Job] | Sequence[str]]:
    """Take the one job that fits, or name those that it could be; nobody else takes one meanwhile."""

    def work() -> tuple[Entry, Job] | list[str]:
        with session.journal.claiming():
            entries = [other for other in session.journal.entries() if other.provider == entry.provider]
            # One that was collected by its id alone is nobody's yet.
            taken = {name for other in entries if other.first for name in (other.id, *other.earlier)} | {*entry.earlier}
            fit = {job.id: job for job in listing.jobs if job.id not in taken and _fits(session, entry, job)}
            others = [
                other
                for other in entries
                if other.state == INTENT and not other.recovered and not same_inputs(other, entry)
            ]
            shared = any(_fits(session, other, job) for job in fit.values() for other in others)
            for job in fit.values():
                if len(fit) == 1 and not shared and _surely(session, entry, job):
                    return accepted(session, entry, job), job
            return list(fit)

    return work


def cloud_ahead(session: Session) -> float | None:
    """Seconds that the cloud's clock is before this machine's, if the cloud has told its time."""
    return None if session.api.time is None else session.api.time - session.clock.time()


def _sent(session: Session, entry: Entry) -> float:
    """When an entry was sent, by the cloud's clock."""
    return entry.intent_at + (entry.ahead if entry.ahead is not None else cloud_ahead(session) or 0.0)


def _age(session: Session, entry: Entry) -> float:
    """Seconds since an entry was sent."""
    return session.clock.time() + (cloud_ahead(session) or 0.0) - _sent(session, entry)


def window(session: Session, entry: Entry) -> tuple[float, float]:
    """Between which moments of the cloud's clock the job of an entry was made."""
    sent, known = _sent(session, entry), entry.ahead is not None
    before = DAMAGED if entry.recovered else BEFORE if known else UNSURE
    return sent - before, sent + (AFTER if known else UNSURE)


def _fits(session: Session, entry: Entry, job: Job) -> bool:
    """Same model, made about when it was sent, and, where the cloud repeats them, the same prompt and seed."""
    if job.model not in (None, entry.model) or job.created is None:
        return False
    if job.prompt is not None and job.prompt != entry.parameters.get("prompt"):
        return False
    if job.seed is not None and job.seed != entry.seed:
        return False
    first, last = window(session, entry)
    return first <= job.created <= last


def _surely(session: Session, entry: Entry, job: Job) -> bool:
    """Whether the only job that fits is ours, and not one that another machine of the account made just before."""
    if job.prompt is not None and job.seed is not None:
        return True
    known = entry.ahead is not None
    before = DAMAGED if entry.recovered else SKEW if known else BEFORE
    sent = _sent(session, entry)
    return job.created is not None and sent - before <= job.created <= sent + AFTER


def _several(found: Sequence[str]) -> str:
    return "one" if len(found) == 1 else "several"


def _later(session: Session) -> str:
    return (
        f"queue the same inputs again in {SEEN_AFTER / 60:.0f} minutes, and the job is picked up or, if "
        f"{session.provider.label} has none, sent anew"
    )


__all__ = ["NotThere", "accepted", "cloud_ahead", "read_list", "reconcile", "window"]
