"""The one request that costs money: sent at most once for a job that may exist.

The cloud took it: its id is on disk before anything else happens. The cloud refused it: nothing was made, and it is
sent again only after its list has been looked at. Or nobody knows: see :mod:`wan_remote.reconcile`. Where the account
has no room for another job, this one stands in line.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import BadResponse, InsecureConnection, NoUploads, RateLimited, RemoteError, TooLarge
from .images import Frame
from .job import Job
from .journal import Entry
from .line import Place, place
from .matching import cloud_ahead
from .providers.base import OK, Call, Reply, is_moderation, refusal, told_id
from .providers.texts import reason
from .reconcile import BETWEEN_LOOKS, LOOKS, accepted, look_for, reconcile, unknown
from .redact import redact
from .retry import LONGEST_ASKED, jittered, no_answer, pause, span, too_long
from .session import Session
from .states import Event, State
from .transport import Answer, Failure, Lost
from .uploads import forget, upload
from .watch import check, sleep, to_the_end

READ = 60.0  # seconds of silence; see :func:`wan_remote.transport.api.exchange` for how long it takes in all
CONNECTS = 3
IMAGE_WORDS = ("image", "frame")
NOT_HEARD = (408, 425, 499)  # what a gateway says when it gave up waiting; what is behind it may have gone on
CONFLICT = 409  # may mean that it is there already
NEXT_TRY = (5.0, 10.0, 20.0, 30.0)  # seconds until the first in line tries again; the last one for ever
SOONEST = 1.0  # seconds until then, if the cloud asks for less
GLANCE = 1.0  # seconds between two looks at the line


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one submission.

    Attributes:
        event: what happened to the job.
        job: as the cloud described it, if it was taken.
        error: what to say if that is the end.
        wait: seconds that the cloud asks for.
        said: why there is no id: what broke, or the cloud's words in place of it.
    """

    event: Event
    job: Job | None = None
    error: RemoteError | None = None
    wait: float | None = None
    said: str = ""


async def submit(session: Session, entry: Entry, frames: tuple[Frame, Frame], wait_seconds: float) -> tuple[Entry, Job]:
    """Send ``entry`` to its cloud.

    Args:
        session: cloud, key, journal.
        entry: in a state from which it may be sent; an intent must be known not to have been taken.
        frames: both images, encoded.
        wait_seconds: patience with a cloud that has no room for the job.

    Returns:
        the entry with the cloud's id, on disk, and the job as the cloud first described it.

    Raises:
        SubmissionUnknown: it may have been taken; queue the same inputs again later.
        RemoteError: it was refused.
        Interrupted: stopped before it was sent, or after its id was written down.
    """
    with place(session.line, session.began) as where:
        sending = _Sending(session, entry, frames, where, session.clock.monotonic(), wait_seconds)
        return await sending.until_taken()


@dataclass(slots=True)
class _Sending:
    session: Session
    entry: Entry
    frames: tuple[Frame, Frame]
    place: Place
    began: float
    patience: float
    busy: int = 0
    connects: int = 0
    forms: Iterator[str] = field(default_factory=lambda: iter(()))

    async def until_taken(self) -> tuple[Entry, Job]:
        session, started = self.session, self.session.clock.time()
        self.forms = iter(session.provider.forms)
        images = await _in_form(session, next(self.forms), self.frames)
        while True:
            await self._my_turn()
            if (found := await self._there_already()) is not None:
                return found
            check(session.watch)
            session.watch.stage(f"submitting to {session.provider.label}")
            call = session.provider.submission(self.entry.parameters, self.entry.seed, *images)
            self.entry, outcome = await _send(session, self.entry, call)
            if outcome.job is not None:
                session.watch.stage(f"{session.provider.label} took it as {outcome.job.id}")
                return self.entry, outcome.job
            if outcome.event is Event.LOST:
                return await reconcile(session, self.entry, just_sent=True)
            assert outcome.error is not None
            if outcome.event is Event.OTHER_FORM:
                images = await self._in_next_form(outcome.error, started)
            elif outcome.event is Event.UNREACHED:
                await self._connect_again(outcome.error)
            elif outcome.event is Event.BUSY:
                await self._no_room(outcome.error, outcome.wait)
            else:
                if self.entry.word == str(CONFLICT) and (found := await self._there_already()) is not None:
                    return found
                raise outcome.error

    async def _there_already(self) -> tuple[Entry, Job] | None:
        """Before anything is sent once more the list is looked at: a refusal may have been a gateway's word only."""
        if not self.entry.submissions or self.entry.state is not State.REJECTED:
            return None
        label, vain, between = self.session.provider.label, 0, BETWEEN_LOOKS
        settled = self.session.clock.monotonic() + READ  # what is under way now has its id by then, or never
        while True:
            look = await look_for(self.session, self.entry)
            if look is not None and look.found is not None:
                return look.found
            if look is not None and look.clear:
                await self._my_turn()
                return None
            doubted = look is not None and bool(look.perhaps)
            vain += not doubted
            late = self.session.clock.monotonic() >= settled or self._left() <= 0.0
            if vain >= LOOKS or late or (doubted and look is not None and not look.shared):
                if doubted:
                    self.entry = self.session.journal.move(self.entry, Event.DOUBTED)
                raise unknown(self.session, self.entry, look)
            self.session.watch.stage(f"looking at the list of {label} before anything is sent again")
            self.place.leave()  # others need not wait for what only this one waits for
            await sleep(between, self.session.watch, self.session.clock)  # others of ours get their ids
            between *= 2.0

    async def _my_turn(self) -> None:
        """Wait until nobody stands in line before this job."""
        while before := self.place.before():
            self.place.stand()
            self._tell(before)
            if self._left() <= 0.0:
                raise self._out_of_patience(None)
            await sleep(GLANCE, self.session.watch, self.session.clock)

    async def _no_room(self, error: RemoteError, asked: float | None) -> None:
        """Wait for the next try; nobody who comes later tries before that."""
        self.place.stand()
        seconds = jittered(NEXT_TRY[min(self.busy, len(NEXT_TRY) - 1)]) if asked is None else max(asked, SOONEST)
        self.busy += 1
        if asked is not None and asked > self._left():
            raise error
        if self._left() <= 0.0:
            raise self._out_of_patience(error)
        self._tell(0, seconds)
        await sleep(min(seconds, self._left()), self.session.watch, self.session.clock)

    def _left(self) -> float:
        return self.began + self.patience - self.session.clock.monotonic()

    def _tell(self, before: int, seconds: float | None = None) -> None:
        label, waited = self.session.provider.label, self.patience - self._left()
        place = f"{before} waiting before this one" if before else f"this one is next, in {seconds:.0f} s"
        self.session.watch.stage(
            f"{label} has no room for another job of this account yet; {place}, waited {span(waited)} of "
            f"{span(self.patience)}. Nothing was made so far",
            min(waited, self.patience), self.patience,
        )  # fmt: skip

    def _out_of_patience(self, error: RemoteError | None) -> RateLimited:
        said = "" if error is None else f" ({error})"
        return RateLimited(
            f"{self.session.provider.label} had no room for another job of this account in {span(self.patience)}"
            f"{said}; nothing was made and nothing is billed: queue the same inputs again, or give it more time "
            "(wait_minutes, --wait)"
        )

    async def _in_next_form(self, error: RemoteError, started: float) -> tuple[str, str]:
        form = next(self.forms, None)
        if form is None and forget(self.session, self.frames, before=started):  # an upload of yesterday may be gone
            form = "url"
        if form is None:
            raise error
        try:
            return await _in_form(self.session, form, self.frames)
        except NoUploads:  # the way out does not exist; what was wrong in the first place is the news
            pass
        raise error

    async def _connect_again(self, error: RemoteError) -> None:
        check(self.session.watch)  # the stop may be why there was no connection
        self.connects += 1
        if self.connects >= CONNECTS or isinstance(error, InsecureConnection):
            raise error
        await sleep(pause(self.connects), self.session.watch, self.session.clock)


async def _send(session: Session, entry: Entry, call: Call) -> tuple[Entry, Outcome]:
    """One submission, and its outcome on disk, in one piece: a stop ends it only before anything of it was sent."""

    def work(stop: threading.Event) -> tuple[Entry, Outcome]:
        intent = session.journal.move(
            entry, Event.SENT, intent_at=session.clock.time(), ahead=cloud_ahead(session),
            submissions=entry.submissions + 1, scope=session.scope, message="", word="",
        )  # fmt: skip
        answer = session.api.call(call.method, call.path, body=call.body, read=READ, stop=stop, firm=True)
        outcome = _of_lost(session, answer) if isinstance(answer, Lost) else _of_reply(session, answer)
        if outcome.job is not None:
            return accepted(session, intent, outcome.job), outcome
        known = {"ahead": cloud_ahead(session) if intent.ahead is None else intent.ahead}
        if outcome.event is Event.LOST:
            return session.journal.move(intent, Event.LOST, message=outcome.said, **known), outcome
        status = "" if isinstance(answer, Lost) else str(session.provider.unwrap(answer).status)
        never = outcome.event is Event.UNREACHED
        refused = session.journal.move(
            intent, outcome.event, ended_at=session.clock.time(), message=str(outcome.error), word=status,
            submissions=entry.submissions if never else intent.submissions, **known,
        )  # fmt: skip
        return refused, outcome

    return await to_the_end(work, session.watch)


def _of_lost(session: Session, lost: Lost) -> Outcome:
    if lost.failure is Failure.LOST:
        return Outcome(event=Event.LOST, said=lost.why)
    return Outcome(event=Event.UNREACHED, error=no_answer(session, lost))


def _of_reply(session: Session, answer: Answer) -> Outcome:
    """What an answer to a submission means."""
    reply = session.provider.unwrap(answer)
    status, provider = reply.status, session.provider
    if status == OK or status in (201, 202):
        return _of_success(session, reply)
    if status in NOT_HEARD or status in (301, 302, 303):  # these three may mean: done, look there
        return Outcome(event=Event.LOST)
    error, wait = refusal(provider, reply, session.secret), answer.retry_after
    if status == 429 or (status == 503 and wait is not None):
        if wait is not None and wait > LONGEST_ASKED:
            error = too_long(session, wait, reply)
        return Outcome(event=Event.BUSY, error=error, wait=wait)
    about_images = status in (400, 422) and any(word in reply.text.lower() for word in IMAGE_WORDS)
    if about_images and is_moderation(reply.text):  # in another form they would show the same
        return Outcome(event=Event.REFUSED, error=error)
    if about_images or (isinstance(error, TooLarge) and len(provider.forms) > 1):
        return Outcome(event=Event.OTHER_FORM, error=error)
    if 300 <= status < 500 or provider.wraps_refusal(reply):
        return Outcome(event=Event.REFUSED, error=error)
    return Outcome(event=Event.LOST)


def _of_success(session: Session, reply: Reply) -> Outcome:
    record = reply.data if isinstance(reply.data, dict) else {}
    if told_id(record) in (None, ""):
        text = redact(reason(record) or reply.text, (session.secret.reveal(),))
        return Outcome(event=Event.LOST, said=f"it said: {text}" if text else "")
    try:
        return Outcome(event=Event.TAKEN, job=session.provider.job(record))
    except BadResponse:  # taken, under a name that can't be used; its list may have the right one
        return Outcome(event=Event.LOST, said="it gave a request id that can't be used")


# -- images ---------------------------------------------------------------------------------------------------------


async def _in_form(session: Session, form: str, frames: tuple[Frame, Frame]) -> tuple[str, str]:
    """Both images as text: base64, a data address, or the address of an upload."""
    if form == "url":
        first = await upload(session, frames[0], "first")
        return first, first if frames[1].sha256 == frames[0].sha256 else await upload(session, frames[1], "last")
    texts = [base64.b64encode(frame.data).decode() for frame in frames]
    if form == "data":
        texts = [f"data:{frame.mime};base64,{text}" for frame, text in zip(frames, texts, strict=True)]
    return texts[0], texts[1]


__all__ = ["submit"]
