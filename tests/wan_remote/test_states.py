"""The table of what may happen to a job: nothing leads to a second payment, and the drawing in the docs is of it.

``REMOTE_STATES=docs/remote_states.md python -m pytest tests/wan_remote/test_states.py`` draws it anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wan_remote.states import MOVES, Event, State, after

PAGE = Path(__file__).resolve().parents[2] / "docs" / "remote_states.md"
TAKEN = (State.SUBMITTED, State.MISSING, State.DONE, State.FETCHED, State.WITHHELD)
WORDS = {
    State.INTENT: "looked for in the cloud's list if it may have been sent, and sent only if it is surely not there",
    State.REJECTED: "sent, after a look at the list that shows nothing of it",
    State.SUBMITTED: "waited for",
    State.MISSING: "asked after again",
    State.DONE: "downloaded, or taken from the disk",
    State.FETCHED: "the file on disk; downloaded again if that is gone",
    State.FAILED: "a new job, paid for anew; if the id was only guessed, looked for as an intent is",
    State.CANCELLED: "as one that failed",
    State.WITHHELD: "told again; nothing is sent",
}
KEPT = {State.FETCHED: "for good: a drive that is away looks like a clip that was deleted"}
HEAD = """# How a paid job stands

Drawn by `REMOTE_STATES=docs/remote_states.md python -m pytest tests/wan_remote/test_states.py`
from the table in `wan_remote/states.py`, which the journal keeps to; a test holds this page to it.

"""


def drawing() -> str:
    lines = [HEAD + "```mermaid", "stateDiagram-v2", f"    [*] --> {State.INTENT.value}"]
    edges: dict[tuple[State, State], list[str]] = {}
    for (state, event), then in MOVES.items():
        edges.setdefault((state, then), []).append(event.value)
    lines += [f"    {a.value} --> {b.value}: {'; '.join(events)}" for (a, b), events in edges.items()]
    lines += ["```", "", "| state | the same inputs, queued again | kept in the journal |", "|---|---|---|"]
    for state in State:
        kept = "until somebody decides" if state.unfinished else KEPT.get(state, "90 days")
        lines.append(f"| {state.value} | {WORDS[state]} | {kept} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_table():
    if place := os.environ.get("REMOTE_STATES"):
        Path(place).write_text(drawing(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == drawing()


def test_what_was_taken_is_never_sent_again():
    seen, border = set(TAKEN), list(TAKEN)
    while border:
        state = border.pop()
        assert (state, Event.SENT) not in MOVES or state in (State.FAILED, State.CANCELLED)
        for (before, _), then in MOVES.items():
            if before is state and then not in seen and then not in (State.FAILED, State.CANCELLED):
                seen.add(then)
                border.append(then)
    assert seen == set(TAKEN)


def test_a_job_that_had_a_video_never_counts_as_failed():
    for state in (State.DONE, State.FETCHED):
        assert {then for (before, _), then in MOVES.items() if before is state} == {
            State.DONE,
            State.FETCHED,
            State.MISSING,
        }


def test_every_state_is_reached():
    assert {State.INTENT, *MOVES.values()} == set(State)


def test_what_is_not_in_the_table_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="a job that is fetched can't be sent"):
        after(State.FETCHED, Event.SENT)
    assert after(State.INTENT, Event.TAKEN) is State.SUBMITTED
