"""The one request that costs money: sent at most once for a job that may exist.

The cloud took it: its id is on disk before anything else happens. The cloud refused it: nothing was made, and it is
sent again only after its list has been looked at. Or nobody knows: see :mod:`wan_remote.reconcile`. Where the account
has no room for another job, this one stands in line.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .answers import Outcome, outcome_of
from .errors import InsecureConnection, NoUploads, RateLimited, RemoteError
from .images import Frame
from .job import Job
from .journal import Entry
from .line import Place, place
from .matching import cloud_ahead
from .reconcile import BETWEEN_LOOKS, LOOKS, accepted, look_for, reconcile, unknown
from .retry import jittered, pause, span
from .session import Session
from .states import Event, State
from .transport import Call
from .uploads import forget, upload
from .watch import check, sleep, to_the_end

Taken = tuple[Entry, Job]
"""An entry with the cloud's id, on disk, and the job as the cloud describes it."""

READ = 60.0  # seconds of silence; see :func:`wan_remote.transport.api.exchange` for how long it takes in all
CONNECTS = 3
CONFLICT = "409"  # may mean that it is there already
NEXT_TRY = (5.0, 10.0, 20.0, 30.0)  # seconds until the first in line tries again; the last one for ever
SOONEST = 1.0  # seconds until then, if the cloud asks for less
GLANCE = 1.0  # seconds between two looks at the line


async def submit(session: Session, entry: Entry, frames: tuple[Frame, Frame], wait_seconds: float) -> Taken:
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
        sending = _Sending(session, entry, frames, where, session.clock.monotonic(), session.clock.time(), wait_seconds)
        return await sending.until_taken()


@dataclass(slots=True)
class _Sending:
    session: Session
    entry: Entry
    frames: tuple[Frame, Frame]
    place: Place
    began: float
    started: float  # the same by the date
    patience: float
    busy: int = 0
    connects: int = 0
    forms: Iterator[str] = field(default_factory=lambda: iter(()))
    images: tuple[str, str] = ("", "")  # in the form that is tried

    async def until_taken(self) -> Taken:
        session = self.session
        self.forms = iter(session.provider.forms)
        self.images = await _in_form(session, next(self.forms), self.frames)
        while True:
            await self._my_turn()
            if (found := await self._there_already()) is not None:
                return found
            async with session.watch.sending():
                check(session.watch)
                session.watch.stage(f"submitting to {session.provider.label}")
                call = session.provider.submission(self.entry.parameters, self.entry.seed, *self.images)
                self.entry, outcome = await _send(session, self.entry, call)
                if outcome.event in ENDS and (found := await NEXT[outcome.event](self, outcome)) is not None:
                    return found
            if outcome.event not in ENDS and (found := await NEXT[outcome.event](self, outcome)) is not None:
                return found

    async def _there_already(self, *, in_line: bool = True) -> Taken | None:
        """Before anything is sent once more the list is looked at: a refusal may have been a gateway's word only.

        Args:
            in_line: whether this job then waits for its turn to be sent.
        """
        if not self.entry.submissions or self.entry.state is not State.REJECTED:
            return None
        label, vain, between = self.session.provider.label, 0, BETWEEN_LOOKS
        settled = self.session.clock.monotonic() + READ  # what is under way now has its id by then, or never
        while True:
            look = await look_for(self.session, self.entry)
            if look is not None and look.found is not None:
                return look.found
            if look is not None and look.clear:
                if in_line:
                    await self._my_turn()
                return None
            doubted = look is not None and bool(look.perhaps)
            vain += not doubted
            late = self.session.clock.monotonic() >= settled or self._left() <= 0.0
            late |= look is not None and look.elsewhere  # no look at this list will tell
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

    async def _taken(self, outcome: Outcome) -> Taken:
        assert outcome.job is not None
        self.session.watch.stage(f"{self.session.provider.label} took it as {outcome.job.id}")
        return self.entry, outcome.job

    async def _lost(self, outcome: Outcome) -> Taken:
        return await reconcile(self.session, self.entry, just_sent=True)

    async def _refused(self, outcome: Outcome) -> Taken:
        # Nothing is sent after it: those in line before this one may be waiting for the word of how it ends.
        if outcome.status == CONFLICT and (found := await self._there_already(in_line=False)) is not None:
            return found
        raise _error(outcome)

    async def _no_room(self, outcome: Outcome) -> None:
        """Wait for the next try; nobody who comes later tries before that."""
        self.place.stand()
        error, asked = _error(outcome), outcome.wait
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

    async def _in_next_form(self, outcome: Outcome) -> None:
        form = next(self.forms, None)
        if form is None and forget(self.session, self.frames, before=self.started):  # yesterday's upload may be gone
            form = "url"
        if form is not None:
            with contextlib.suppress(NoUploads):  # what was wrong in the first place is the news
                self.images = await _in_form(self.session, form, self.frames)
                return
        raise _error(outcome)

    async def _connect_again(self, outcome: Outcome) -> None:
        check(self.session.watch)  # the stop may be why there was no connection
        self.connects += 1
        if self.connects >= CONNECTS or isinstance(outcome.error, InsecureConnection):
            raise _error(outcome)
        await sleep(pause(self.connects), self.session.watch, self.session.clock)


NEXT: Mapping[Event, Callable[[_Sending, Outcome], Awaitable[Taken | None]]] = {
    Event.TAKEN: _Sending._taken,
    Event.LOST: _Sending._lost,
    Event.REFUSED: _Sending._refused,
    Event.BUSY: _Sending._no_room,
    Event.OTHER_FORM: _Sending._in_next_form,
    Event.UNREACHED: _Sending._connect_again,
}
"""What comes after each outcome: an end, or another try."""
ENDS = (Event.TAKEN, Event.LOST, Event.REFUSED)
"""After which all others of a list wait to hear how it ends, before one of them is sent."""


def _error(outcome: Outcome) -> RemoteError:
    assert outcome.error is not None
    return outcome.error


async def _send(session: Session, entry: Entry, call: Call) -> tuple[Entry, Outcome]:
    """One submission, and its outcome on disk, in one piece: a stop ends it only before anything of it was sent."""

    def work(stop: threading.Event) -> tuple[Entry, Outcome]:
        intent = session.journal.move(
            entry, Event.SENT, intent_at=session.clock.time(), ahead=cloud_ahead(session),
            submissions=entry.submissions + 1, scope=session.scope, message="", word="",
        )  # fmt: skip
        answer = session.api.call(replace(call, read=READ), stop=stop, firm=True)
        outcome = outcome_of(session, answer)
        if outcome.job is not None:
            return accepted(session, intent, outcome.job), outcome
        known = {"ahead": cloud_ahead(session) if intent.ahead is None else intent.ahead}
        if outcome.event is Event.LOST:
            return session.journal.move(intent, Event.LOST, message=outcome.said, **known), outcome
        never = outcome.event is Event.UNREACHED
        refused = session.journal.move(
            intent, outcome.event, ended_at=session.clock.time(), message=str(outcome.error),
            word=entry.word if never else outcome.status,  # of what was heard of the one before
            submissions=entry.submissions if never else intent.submissions, **known,
        )  # fmt: skip
        return refused, outcome

    return await to_the_end(work, session.watch)


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
