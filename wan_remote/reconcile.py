"""A submission whose answer was lost: its job is looked for in the cloud's list and adopted if exactly one fits.

The rule behind all of it: *unknown is never absent*. That there is none is believed only of a list that was understood
row by row, reaches back to before the submission, shows another job of the same account, has had time to show this
one, can't have dropped it for its age, and has no row that could be it. Times are the cloud's own: this machine's clock
may have been corrected since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .errors import StorageError, SubmissionUnknown
from .job import Job
from .journal import Entry
from .listing import Listing, read_list
from .matching import Fit, age, cloud_ahead, fit, same_inputs, sent_at, window
from .retry import span
from .session import Session
from .states import Event, State
from .watch import sleep, to_the_end

SEEN_AFTER = 900.0  # seconds after which the cloud's list shows every job
LOOKS, BETWEEN_LOOKS = 3, 3.0
SHOWN_FOR = 86400.0  # seconds for which a list surely shows a job
BEFORE_IT_GOES = 86400.0  # seconds before a list drops a job from which on it proves nothing
APART = 2.0  # seconds after which one of two jobs of this machine is surely the later one, in whole seconds too
OF_THE_ACCOUNT = ("401", "402", "403")  # refusals for the key or the account that sent it, which pass nothing on
MOST_TOLD = 3  # ids in a message


class NotThere(Exception):  # noqa: N818
    """No job was made of an intent: it may be sent again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a cloud's list says of one submission.

    Attributes:
        found: its job, taken for it on disk.
        perhaps: ids of jobs that it could be, the best fit first.
        shared: whether other submissions without an id could have made all of these, such as some that are under way.
        clear: whether nothing speaks of a job, in a list that does not contradict what is known. That is enough where
            the cloud itself said that it made none.
        settled: whether every job of that time is known: then there is none, also where the cloud said nothing. A list
            that lacks a job of ours that came later may lack this one too.
        elsewhere: whether it was sent with another key, and this list shows nothing of that account.
        old: whether only that is in the way that a list no longer shows jobs as old as this one, or may not.
    """

    found: tuple[Entry, Job] | None = None
    perhaps: tuple[str, ...] = ()
    shared: bool = False
    clear: bool = False
    settled: bool = False
    elsewhere: bool = False
    old: bool = False


def accepted(session: Session, entry: Entry, job: Job, rivals: list[Entry] | None = None) -> Entry:
    """The entry with the cloud's id, on disk.

    Args:
        session: cloud and journal.
        entry: without an id.
        job: the cloud's.
        rivals: other submissions that it could be of, if it is only guessed that it is of this one.

    Raises:
        StorageError: it can't be written; says the id.
    """
    try:
        return session.journal.move(
            entry, Event.TAKEN, id=job.id, submitted_at=session.clock.time(), word=job.word,
            recovered=entry.recovered and rivals is not None, guessed=rivals is not None,
            rivals=tuple(rival.fingerprint for rival in rivals or ()),
        )  # fmt: skip
    except StorageError as error:
        failed = str(error)
    raise StorageError(
        f"{session.provider.label} has the job as {job.id}, which can't be written down: {failed}. Then queue the same "
        f"inputs again or collect {job.id} with Fetch Result; neither is paid for again"
    )


async def reconcile(session: Session, entry: Entry, *, just_sent: bool = False) -> tuple[Entry, Job]:
    """Find the job of an ``intent`` in the cloud's list and adopt it.

    Args:
        session: cloud, key, journal.
        entry: in state ``intent``.
        just_sent: whether this very run sent it: it is not sent again then, however long that took.

    Raises:
        SubmissionUnknown: none or several fit, or the list can't be had or not be trusted; says what to do.
        NotThere: it was surely not taken: the same inputs may be sent.
    """
    session.watch.stage(
        f"it is not known whether {session.provider.label} took the submission; looking for it in its list"
    )
    last: Look | None = None
    for number in range(LOOKS):
        if number:
            await sleep(BETWEEN_LOOKS, session.watch, session.clock)
        look = await look_for(session, entry)
        if look is not None and look.found is not None:
            return look.found
        if just_sent and entry.ahead is None and (ahead := cloud_ahead(session)) is not None:
            entry = session.journal.update(entry, ahead=ahead)
            look = await look_for(session, entry) or look  # with the time known, it may be taken
            if look is not None and look.found is not None:
                return look.found
        last = look or last
        if look is not None and look.perhaps and not look.shared:
            break
    if last is not None and last.settled and not just_sent and age(session, entry) > SEEN_AFTER:
        raise NotThere("the cloud has no such job")
    raise unknown(session, entry, last)


async def look_for(session: Session, entry: Entry) -> Look | None:
    """Look once for the job of an entry, and take it if it is surely the one; None if the list can't be had."""
    listing = await read_list(session, window(session, entry)[0])
    return None if listing is None else await to_the_end(_claim(session, entry, listing), session.watch)


def _claim(session: Session, entry: Entry, listing: Listing) -> Callable[[threading.Event], Look]:
    def work(stop: threading.Event) -> Look:
        with session.journal.claiming():  # nobody else takes one meanwhile
            entries = [other for other in session.journal.entries() if other.provider == entry.provider]
            # One that was collected by its id alone is nobody's yet.
            taken = {name for other in entries if other.first for name in (other.id, *other.earlier)} | {*entry.earlier}
            free = [job for job in listing.jobs if job.id not in taken]
            fits = sorted(((fit(session, entry, job), job) for job in free), key=lambda row: -row[0])
            fits = [(found, job) for found, job in fits if found]
            others = [other for other in _without_id(entries) if other.fingerprint != entry.fingerprint]
            mine = _surely(session, entry, fits, others)
            if mine is not None:
                sure = fit(session, entry, mine) >= Fit.ALIKE
                return Look(found=(accepted(session, entry, mine, None if sure else []), mine))
            guesses = {other.id for other in entries if entry.fingerprint in other.rivals}
            fits += [(Fit.PERHAPS, job) for job in listing.jobs if job.id in guesses and fit(session, entry, job)]
            ours = [other for other in entries if other.scope == entry.scope and other.first]
            shown = {job.id for job in listing.jobs}
            shows_ours = any(shown.intersection((other.id, *other.earlier)) for other in ours)
            expected = [other for other in ours if session.clock.time() - other.submitted_at < SHOWN_FOR]
            later = [other for other in ours if other.submitted_at > entry.intent_at]
            earlier = {other.id for other in ours if 0.0 < other.submitted_at < entry.intent_at - APART}
            reaches = listing.ordered and not earlier.isdisjoint(shown)  # what came later stands above that one
            settled = not fits and listing.whole and shows_ours and not entry.recovered
            back = not earlier.isdisjoint(shown) or _goes_back(session, entry, listing)
            elsewhere = entry.scope != session.scope and not shows_ours  # that list has it, if any has
            judged = (listing.whole or listing.empty or reaches) and (shows_ours or not expected)
            final = entry.state is State.REJECTED and entry.word in OF_THE_ACCOUNT
            lags = any(other.id not in shown and other.state is not State.MISSING for other in later)
            return Look(
                perhaps=tuple(job.id for _, job in fits),
                shared=all(any(fit(session, other, job) for other in others) for _, job in fits),
                clear=not fits and (final if elsewhere else judged),
                settled=settled and back and not lags,
                elsewhere=elsewhere,
                old=settled and not back,
            )

    return work


def _goes_back(session: Session, entry: Entry, listing: Listing) -> bool:
    """Whether a list still shows jobs of the age of an entry: by the cloud's word, else by a row that is older."""
    remembers, old = session.provider.remembers, age(session, entry)
    if remembers is not None:
        return old < remembers - BEFORE_IT_GOES
    if old < SHOWN_FOR:
        return True
    return any(job.created is not None and job.created < sent_at(session, entry) - APART for job in listing.jobs)


def _surely(session: Session, entry: Entry, fits: list[tuple[Fit, Job]], others: list[Entry]) -> Job | None:
    """The one job that is the entry's, if there is exactly one; where the cloud repeats nothing, another submission of
    unknown fate must not have a claim to it either. A refusal is not overruled by a job that only came at its time."""
    for level in (Fit.SURE, Fit.ALIKE):
        if alike := [job for found, job in fits if found is level]:
            claims = [other for other in _open(others) if fit(session, other, alike[0]) >= level]
            return alike[0] if len(alike) == 1 and not claims else None
    close = [(found, job) for found, job in fits if found > Fit.UNLIKELY]
    if len(close) != 1 or close[0][0] is not Fit.LIKELY or entry.state is not State.INTENT:
        return None
    job = close[0][1]
    return None if any(fit(session, other, job) for other in others) else job


def _without_id(entries: list[Entry]) -> list[Entry]:
    """Those that a job in the list may be of, a refused one too: its job must not be taken for another's."""
    return _open(entries) + [entry for entry in entries if entry.state is State.REJECTED and entry.submissions]


def _open(entries: list[Entry]) -> list[Entry]:
    """Those that were perhaps taken and have no id."""
    return [entry for entry in entries if entry.state is State.INTENT and (entry.submissions or entry.recovered)]


def open_for(session: Session, job: Job) -> tuple[Entry, list[Entry] | None] | None:
    """Of the submissions of unknown fate the one that a job, asked for by its id, belongs to: the best fit, and of
    equal ones that which was sent nearest to when the job was made. Besides, the others it could be of, refused ones
    too; None if by the cloud's words it is this one's."""
    entries = [entry for entry in session.journal.entries() if entry.provider == session.provider.name]
    if any(job.id in (entry.id, *entry.earlier) for entry in entries if entry.first):
        return None

    def rank(entry: Entry) -> tuple[int, bool, bool, float]:
        apart = abs((job.created or 0.0) - sent_at(session, entry))
        return fits[entry.fingerprint], same_inputs(entry, job), entry.state is State.INTENT, -apart

    free = _without_id(entries)
    fits = {entry.fingerprint: found for entry in free if (found := fit(session, entry, job))}
    able = [entry for entry in free if entry.state is State.INTENT or fits.get(entry.fingerprint, 0) >= Fit.ALIKE]
    best = max((entry for entry in able if entry.fingerprint in fits), key=rank, default=None)
    if best is None:
        return None
    level = fits.pop(best.fingerprint)
    rivals = [entry for entry in free if entry.fingerprint in fits]
    sure = level >= Fit.ALIKE and all(found < level for found in fits.values())
    return best, None if sure else rivals


def unknown(session: Session, entry: Entry, look: Look | None) -> SubmissionUnknown:
    """What to say of a submission of unknown fate, to someone who may have paid for it."""
    label = session.provider.label
    said = f" ({entry.message})" if entry.message else ""
    again = f"to have it made and pay once more on purpose, set take to {entry.take + 1}"
    collect = "with Fetch Result"
    if entry.state is State.INTENT:  # a refused one is given only what is surely its own
        collect += ", and it belongs to these inputs from then on"
    see = f"see on the site of {label} whether there is a job of that time and collect that {collect}"
    if look is not None and look.perhaps:
        ids = ", ".join(look.perhaps[:MOST_TOLD]) + (" and others" if len(look.perhaps) > MOST_TOLD else "")
        several = len(look.perhaps) > 1
        news = f"its list shows {ids}, {'one of which may be it' if several else 'which may be it'}"
        advice = f"collect {'the right one' if several else 'it'} by its id {collect}; or, {again}"
    elif look is not None and look.elsewhere:
        sent = "refused" if entry.state is State.REJECTED else "sent"
        news = f"it was {sent} with another key, and the list of this one shows no job of that account"
        advice = f"queue the same inputs again with that key, if it still works; or {see}; or, {again}"
    elif look is not None and look.old:
        news = f"it was sent {span(age(session, entry))} ago, and its list may show nothing as old as that"
        advice = f"{see}; or, {again}"
    else:
        news = "its list can't be had" if look is None else "its list does not settle it"
        wait = SEEN_AFTER - age(session, entry) if entry.state is State.INTENT else 0.0
        when = f"in {span(max(wait, 60.0))}" if wait > 0.0 else "later"
        advice = f"queue the same inputs again {when} to have it looked for once more; or {see}; or, {again}"
    return SubmissionUnknown(
        f"it is not known whether {label} took the submission{said}, so you may be billed for one clip: {news}. "
        f"Nothing was sent a second time; {advice}"
    )
