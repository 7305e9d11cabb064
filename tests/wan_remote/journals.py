"""Entries and a clock for the tests of the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wan_remote.clock import Clock
from wan_remote.journal import Entry, fingerprint

NAME = fingerprint("gmi", "m", {"prompt": "p", "seed": 1}, "a", "b")
NOW = 2e9


class StoppedClock(Clock):
    def time(self) -> float:
        return NOW


def entry(name: str = NAME, **changes: Any) -> Entry:
    made = Entry(
        fingerprint=name, provider="gmi", model="m", scope="s", parameters={"prompt": "p"}, first="a", last="b", seed=1
    )
    return replace(made, **changes)
