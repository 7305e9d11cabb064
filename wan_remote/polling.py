"""Waiting for a paid job: patient with the network, bounded in time, and the job is never lost."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from .errors import (
    BadResponse,
    EmptyResult,
    JobCancelled,
    JobFailed,
    JobGone,
    Moderated,
    RemoteError,
    StillRunning,
)
from .job import Job, Status
from .journal import Entry
from .listing import read_list
from .matching import window
from .providers.base import OK, Reply, is_moderation, refusal
from .redact import redact, unsigned
from .request import RANDOM_SEED
from .retry import LONGEST_ASKED, PASSING, no_answer, once, pause, span
from .session import Session
from .states import Event, State
from .transport import Failure, Lost
from .watch import check, sleep

PAUSES = (3.0, 5.0, 5.0, 8.0, 10.0, 10.0, 15.0)  # seconds; the last one for ever
JITTER = 0.2
NEW = 30.0  # seconds of nothing but 404 after which its list is asked
LISTED_STILL = 300.0  # seconds for which a job is waited for that is listed and can't be asked for
NAMELESS_READS = 6  # answers in a row that name no job; more of them would say nothing else
EMPTY_READS, EMPTY_PAUSE = 4, 3.0  # looks at a finished job without a video

log = logging.getLogger("wan_remote")


def still_going(session: Session, entry: Entry) -> str:
    """For someone who stops."""
    return f"stopped; {session.provider.label} goes on with {entry.id}: {again(entry)} to collect it"


def again(entry: Entry) -> str:
    """What brings a job back that is not here yet; nothing is paid for then."""
    return "queue the same inputs again" if entry.first else f"fetch {entry.id} again"


def another(entry: Entry) -> str:
    """What pays once more where queueing again does not."""
    if not entry.first:
        return "it was not sent from here, so it can't be made again here"
    if entry.state is State.WITHHELD and entry.parameters.get("seed", RANDOM_SEED) != RANDOM_SEED:
        return "to have and pay for another, change the seed"  # another take would be the very clip that is withheld
    return f"to have it made and pay once more, set take to {entry.take + 1}"


def outcome(session: Session, entry: Entry) -> str:
    """How a job ended without a video, and what the same inputs are now."""
    label = session.provider.label
    if not entry.first and entry.state in (State.WITHHELD, State.FAILED, State.CANCELLED):
        return f"{entry.message}; {another(entry)}"
    more = f"; or, {another(entry)}" if entry.first else ""
    if entry.state is State.WITHHELD:
        return (
            f"{entry.message}. Queueing the same inputs again pays for nothing and says this again: "
            f"{session.provider.moderation_note}{more}"
        )
    if entry.state is State.DONE:
        return (
            f"{entry.message}. It had a video before, so nothing is sent or paid for again: {again(entry)} later{more}"
        )
    if entry.state is State.MISSING:
        return (
            f"{entry.message}. It is kept, and nothing is paid for again: see that key, organisation and address are "
            f"those it was paid with, and {again(entry)}, or ask {label}{more}"
        )
    if entry.guessed:
        return (
            f"{entry.message}. Its id was only guessed, so it may have been another's: queue the same inputs again and "
            f"their own job is looked for; nothing is sent or paid for again while it may be there{more}"
        )
    return f"{entry.message}; queue the same inputs again for a new job, which is paid for anew"


async def wait(session: Session, entry: Entry, job: Job | None, wait_seconds: float) -> tuple[Entry, Job]:
    """Ask after a job until it has a video.

    Args:
        session: cloud, key, journal.
        entry: with an id, in state ``submitted`` or ``done``.
        job: what is already known of it, from the answer to the submission.
        wait_seconds: patience, in seconds; running out of it loses nothing.

    Raises:
        StillRunning: not done in time; the job goes on.
        JobFailed, JobCancelled, JobGone, Moderated, EmptyResult: it ended without a video.
        RemoteError: the cloud refuses to say.
        Interrupted: stopped; the job goes on.
    """
    waiting = _Waiting(session=session, entry=entry, began=session.clock.monotonic(), limit=wait_seconds)
    if job is not None and job.status.ended and (job.url or job.status is not Status.SUCCEEDED):
        return waiting.settle(job)
    return await waiting.until_done(first=job is not None)


@dataclass(slots=True)
class _Waiting:
    session: Session
    entry: Entry
    began: float
    limit: float
    polls: int = 0
    failures: int = 0
    empty: int = 0
    slower: float = 1.0
    nameless: int = 0
    warned: bool = False
    unknown_since: float | None = None

    async def until_done(self, *, first: bool) -> tuple[Entry, Job]:
        session, said = self.session, still_going(self.session, self.entry)
        if first:
            await sleep(self._jittered(session.provider.first_poll), session.watch, session.clock, said)
        while True:
            check(session.watch, said)
            begun = session.clock.monotonic()  # before the look: a limit counts only if a look came after it
            found = await once(session, session.provider.status(self.entry.id), said)
            if isinstance(found, Reply) and found.status == 404:
                seconds, job = await self._not_known()
            else:
                seconds, job = self._look(found)
            if job is not None:
                return self.settle(job)
            if begun - self.began >= self.limit:
                raise self._out_of_patience()
            await sleep(seconds, session.watch, session.clock, said)

    def settle(self, job: Job) -> tuple[Entry, Job]:
        """Write down how a job ended; the first end counts."""
        session, now = self.session, self.session.clock.time()
        facts = {
            "word": job.word, "ended_at": now, "seconds": job.seconds or 0.0, "flagged": job.flagged,
            "thumbnail": unsigned(job.thumbnail), "queued_at": job.queued or job.created, "updated_at": job.updated,
        }  # fmt: skip
        if job.status is Status.SUCCEEDED and job.url:
            return session.journal.move(self.entry, Event.MADE, **facts), job
        event, kind, what = self._ended(job)
        entry = session.journal.move(self.entry, event, message=what, **facts)
        raise kind(outcome(session, entry))

    def _ended(self, job: Job) -> tuple[Event, type[RemoteError], str]:
        label, word = self.session.provider.label, job.word.lower()
        message = redact(job.message, (self.session.secret.reveal(),))
        if job.withheld or (job.status is Status.FAILED and is_moderation(job.message)):
            why = message or "its content filter withheld the clip"
            return Event.WITHHELD, Moderated, f"{label} withheld {job.id}: {why}"
        if word == "deleted":
            return Event.NOT_KNOWN, JobGone, f"{label} says that {job.id} was deleted"
        if job.status is Status.CANCELLED:
            return Event.CANCELLED, JobCancelled, f"{job.id} was cancelled at {label}"
        why = message or ("it took too long there (timeout)" if word == "timeout" else "it does not say why")
        if word == "timeout" and "timeout" not in why:
            why += " (timeout)"
        note = self.session.provider.failure_note
        return Event.FAILED, JobFailed, f"{label} could not make {job.id}: {why}{note}"

    def _look(self, found: Reply | Lost) -> tuple[float, Job | None]:
        """Seconds until the next look, and the job if that is over."""
        session = self.session
        if isinstance(found, Lost):
            if found.failure is Failure.INSECURE:
                raise no_answer(session, found)
            return self._troubled(found.why), None
        if found.status == OK and isinstance(found.data, dict):
            return self._read(found)
        if found.status == 429:
            self.slower = 2.0
            asked = found.answer.retry_after
            least = session.provider.least_pause
            return (self._pause() if asked is None else max(least, min(asked, LONGEST_ASKED))), None
        if found.status in PASSING or found.status == OK:
            return self._troubled(f"it answers {found.status}"), None
        error = refusal(session.provider, found, session.secret)
        raise type(error)(f"{error} (the job {self.entry.id} is kept: {again(self.entry)})")

    def _read(self, found: Reply) -> tuple[float, Job | None]:
        session, entry = self.session, self.entry
        named = session.provider.id_of(found.data)
        if named in (None, "") or isinstance(named, list | dict):
            return self._nameless(), None
        job = session.provider.job(found.data)
        if job.id != entry.id:  # whatever its model is called
            raise BadResponse(
                f"{session.provider.label} was asked for {entry.id} and gave another job; it is kept: {again(entry)}"
            )
        self.failures, self.nameless, self.unknown_since = 0, 0, None
        if entry.state is State.MISSING:
            self.entry = entry = session.journal.move(entry, Event.KNOWN, message="")
        if entry.scope != session.scope:  # a new key of the same account
            self.entry = entry = session.journal.update(entry, scope=session.scope)
        self.polls += 1
        if job.status is Status.SUCCEEDED and not job.url and not job.withheld:
            self.empty += 1
            if self.empty >= EMPTY_READS:
                raise EmptyResult(
                    f"{session.provider.label} says that {job.id} is done and gives no video; it is kept: "
                    f"{again(entry)} to look once more"
                )
            return EMPTY_PAUSE, None
        if job.status.ended:
            return 0.0, job
        if not job.known and not self.warned:
            self.warned = True
            log.warning("%s uses a status not known here: %s", session.provider.label, job.word or "(none)")
        waited = session.clock.monotonic() - self.began
        session.watch.stage(
            f"{session.provider.label}: {job.word or job.status.value}, {waited:.0f} s ({job.id})", waited
        )
        return self._pause(), None

    def _nameless(self) -> float:
        self.nameless += 1
        if self.nameless >= NAMELESS_READS:
            raise BadResponse(
                f"{self.session.provider.label} answers {self.nameless} times without saying of which job; "
                f"{self.entry.id} is kept: {again(self.entry)}"
            )
        return self._troubled("its answer has no id")

    async def _not_known(self) -> tuple[float, Job | None]:
        """A 404 ends no job that was paid for: it may be taken too lately, the answer may be a balancer's, or this is
        not the account that it was paid from.

        Returns:
            seconds until the next look, and the job if its list shows how it ended.
        """
        session, entry, now = self.session, self.entry, self.session.clock.monotonic()
        label = session.provider.label
        if self.unknown_since is None:
            self.unknown_since = now
        if not (entry.submitted_at > 0.0 or self.polls > 0):
            raise JobGone(f"{label} does not know {entry.id}; check the id, and that it is of this cloud and account")
        if now - self.unknown_since < NEW:
            return NEW / 6, None
        listing = await read_list(session, window(session, entry)[0])
        listed = next((job for job in listing.jobs if job.id == entry.id), None) if listing is not None else None
        if listed is not None and listed.status.ended and (listed.url or listed.status is not Status.SUCCEEDED):
            return 0.0, listed
        if listed is not None and now - self.unknown_since < LISTED_STILL:
            return self._troubled("it says it knows no such job, and lists it"), None
        what = f"{label} says it does not know {entry.id}"
        if entry.scope != session.scope:
            what += ", which was sent with another key"
        self.entry = session.journal.move(entry, Event.NOT_KNOWN, message=what)
        raise JobGone(outcome(session, self.entry))

    def _troubled(self, why: str) -> float:
        self.failures += 1
        label = self.session.provider.label
        self.session.watch.stage(f"no word from {label} ({why}); asking again, the job {self.entry.id} is kept")
        return max(self.session.provider.least_pause, pause(self.failures + 2))

    def _pause(self) -> float:
        planned = PAUSES[min(self.polls, len(PAUSES) - 1)]
        return self._jittered(max(planned, self.session.provider.least_pause) * self.slower)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1.0 + JITTER * (2.0 * random.random() - 1.0))  # noqa: S311

    def _out_of_patience(self) -> StillRunning:
        waited = span(self.session.clock.monotonic() - self.began)
        return StillRunning(
            f"{self.session.provider.label} is not done with {self.entry.id} after {waited}; it goes on: "
            f"{again(self.entry)} to keep waiting"
        )
