"""How a paid job may stand, what may happen to it, and where each of that leads: one table, which the journal keeps to.

``docs/remote_states.md`` is drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(str, Enum):
    """How a job stands, as its journal entry has it."""

    INTENT = "intent"  # about to be sent, or sent and nobody knows whether it was taken
    REJECTED = "rejected"  # refused, or never reached the cloud: nothing was made
    SUBMITTED = "submitted"  # taken; its id is known
    MISSING = "missing"  # taken, and the cloud says it knows no such job; asked after again each time
    DONE = "done"  # the cloud has its video
    FETCHED = "fetched"  # the video is here
    FAILED = "failed"  # the cloud could not make it
    CANCELLED = "cancelled"
    WITHHELD = "withheld"  # made or not, the cloud's filter does not give it

    __str__ = str.__str__

    @property
    def unfinished(self) -> bool:
        """Paid for or perhaps paid for, and not here: kept until somebody decides."""
        return self in (State.INTENT, State.SUBMITTED, State.MISSING, State.DONE)


class Event(Enum):
    """What happens to a job."""

    SENT = "sent"
    TAKEN = "its id is answered, found or given"
    REFUSED = "refused"
    BUSY = "refused for now"
    OTHER_FORM = "refused for the form of its images"
    UNREACHED = "nothing was sent"
    LOST = "its answer is lost"
    DOUBTED = "refused, yet the list shows what may be it"
    UNSURE = "its id was only guessed"
    NOT_KNOWN = "the cloud does not know it"
    KNOWN = "the cloud knows it again"
    MADE = "has a video"
    STORED = "the video is on disk"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WITHHELD = "withheld by the filter"


def _moves(states: tuple[State, ...], **leads: State) -> dict[tuple[State, Event], State]:
    return {(state, Event[name]): after for state in states for name, after in leads.items()}


_S = State
MOVES: Mapping[tuple[State, Event], State] = {
    **_moves((_S.INTENT, _S.REJECTED, _S.FAILED, _S.CANCELLED), SENT=_S.INTENT),
    **_moves((_S.INTENT,), REFUSED=_S.REJECTED, BUSY=_S.REJECTED, OTHER_FORM=_S.REJECTED, UNREACHED=_S.REJECTED),
    **_moves((_S.INTENT,), LOST=_S.INTENT),
    **_moves((_S.REJECTED,), DOUBTED=_S.INTENT),
    **_moves((_S.FAILED, _S.CANCELLED), UNSURE=_S.INTENT),  # the job of another may have failed
    **_moves((_S.INTENT, _S.REJECTED), TAKEN=_S.SUBMITTED),
    **_moves((_S.MISSING,), KNOWN=_S.SUBMITTED),
    **_moves((_S.SUBMITTED, _S.MISSING, _S.DONE, _S.FETCHED), NOT_KNOWN=_S.MISSING, MADE=_S.DONE, STORED=_S.FETCHED),
    **_moves((_S.SUBMITTED, _S.MISSING), FAILED=_S.FAILED, CANCELLED=_S.CANCELLED, WITHHELD=_S.WITHHELD),
    # Its first end counts: what was made and paid for is not bought again because the cloud changes its mind.
    **_moves((_S.DONE, _S.FETCHED), FAILED=_S.DONE, CANCELLED=_S.DONE, WITHHELD=_S.DONE),
}
"""State and event to the state after it. What is not here can't happen."""


def after(state: State, event: Event) -> State:
    """Where an event leads.

    Raises:
        ValueError: it can't happen in that state; a mistake of this package.
    """
    try:
        return MOVES[state, event]
    except KeyError:
        raise ValueError(f"a job that is {state.value} can't be {event.value}") from None
