"""Calls that may be repeated, and how long to wait before that."""

from __future__ import annotations

import random
import threading

from .errors import BadResponse, InsecureConnection, RateLimited, RemoteError, Unreachable
from .providers.base import OK, Reply, refusal
from .session import Session
from .transport import OWN_CERTIFICATE, Call, Failure, Lost
from .watch import in_thread, sleep

PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 529, 530)
ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
LONGEST_ASKED = 120.0  # seconds a cloud may ask for; beyond that it is an answer, not a pause


def pause(attempt: int) -> float:
    """Seconds before the attempt after ``attempt`` (0, 1, ...): doubled each time, with equal jitter.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return jittered(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt))


def jittered(seconds: float) -> float:
    """Between half and all of it, so that those who were turned away together do not come back together."""
    return seconds * (0.5 + 0.5 * random.random())  # noqa: S311


def span(seconds: float) -> str:
    """A time in words."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds > 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.0f} minutes"


def too_long(session: Session, seconds: float, reply: Reply) -> RateLimited:
    """What to say if a cloud asks for more patience than a run has."""
    said = str(refusal(session.provider, reply, session.secret)).removesuffix("; try again later")
    return RateLimited(f"{said}; it asks to wait for {span(seconds)}")


def no_answer(session: Session, lost: Lost) -> RemoteError:
    """The error for a call that nothing came back from."""
    label = session.provider.label
    if lost.failure is Failure.INSECURE:
        return InsecureConnection(
            f"{label} can't be trusted: it showed {lost.why}, so nothing was sent; check the clock and the network of "
            f"this machine, and {OWN_CERTIFICATE}"
        )
    if lost.failure is Failure.STOPPED:
        return Unreachable(f"stopped before anything was sent to {label}")
    return Unreachable(f"{label} can't be reached: {lost.why}; check the network and try again")


async def ask(session: Session, call: Call, *, attempts: int = ATTEMPTS, said: str = "stopped") -> Reply:
    """A call that costs nothing, repeated while the cloud is out of breath.

    Raises:
        RemoteError: the cloud refuses, or can't be reached.
        Interrupted: stopped.
    """
    failed: RemoteError = BadResponse(f"{session.provider.label} was not asked")
    for attempt in range(attempts):
        found = await once(session, call, said)
        wait: float | None = None
        if isinstance(found, Reply):
            if found.status == OK and found.answer.json() is not None:
                return found
            failed = refusal(session.provider, found, session.secret)
            wait = found.answer.retry_after
            if found.status not in PASSING and found.status != OK:
                raise failed
            if wait is not None and wait > LONGEST_ASKED:
                raise too_long(session, wait, found)
        else:
            failed = no_answer(session, found)
            if found.failure is Failure.INSECURE:
                raise failed
        if attempt + 1 < attempts:
            await sleep(pause(attempt) if wait is None else wait, session.watch, session.clock, said)
    raise failed


async def once(session: Session, call: Call, said: str = "stopped") -> Reply | Lost:
    """One try of a call, in a thread; a stop does not wait for it."""

    def work(stop: threading.Event) -> Reply | Lost:
        answer = session.api.call(call, stop=stop)
        return answer if isinstance(answer, Lost) else session.provider.unwrap(answer)

    return await in_thread(work, session.watch, said)
