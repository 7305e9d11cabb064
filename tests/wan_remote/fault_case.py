"""One fault as data: what the cloud does wrong, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

GMI, WAVESPEED = "gmi", "wavespeed"
BOTH = (GMI, WAVESPEED)
POLL = {GMI: "gmi.status", WAVESPEED: "wavespeed.result"}
RUNNING = {GMI: "processing", WAVESPEED: "processing"}
WAITING = {GMI: "queued", WAVESPEED: "created"}
DONE = {GMI: "success", WAVESPEED: "completed"}
LOST = {"kind": "reset", "when": "after", "accept": True}  # the job is made, its answer lost
NOT_MADE = {"kind": "reset", "when": "after"}
DOWN = {"kind": "answer", "status": 500, "text": "down", "times": 0}


@dataclass(frozen=True, kw_only=True)
class Again:
    """The same inputs queued once more, ``after`` seconds later."""

    end: str = "result"
    posts: int  # in all
    accepted: int = 1  # in all
    after: float = 0.0
    repair: dict[str, Any] = field(default_factory=dict)  # settings changed in between


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str  # the fault in words
    provider: str
    end: str = "result"  # or the name of the error class
    posts: int | tuple[int, int] = 1  # submissions that reached the cloud; or least and most
    accepted: int = 1  # submissions that made a job
    journal: str | tuple[str, ...] = "fetched"  # the state on disk afterwards; several where each is right
    faults: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    plan: list[Any] = field(default_factory=list)
    plan_more: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)  # the cloud's keys, where not ours
    request: dict[str, Any] = field(default_factory=dict)
    wait_seconds: float = 1800.0
    says: tuple[str, ...] = ()  # all of these stand in the message
    never: tuple[str, ...] = ()  # routes that must not have been asked
    asked: dict[str, int | tuple[int, int]] = field(default_factory=dict)  # route -> times, or least and most
    slept: tuple[float, float] | None = None  # least and most seconds of waiting
    again: Again | None = None
    within: float = 6.0  # seconds of real time

    @property
    def id(self) -> str:
        return f"{self.provider}: {self.name}"


def answer(provider: str, status: int, text: str = "", **more: Any) -> dict[str, Any]:
    """A refusal in the words of the cloud; ``headers``, ``times`` and ``accept`` as in a fault."""
    body = {"error": text} if provider == GMI else {"code": status, "message": text, "data": None}
    return {"kind": "answer", "status": status, "json": body, **more}


def retry_after(provider: str, status: int, value: str, **more: Any) -> dict[str, Any]:
    return answer(provider, status, "slow down", headers={"Retry-After": value}, **more)


def submit(provider: str, *script: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {f"{provider}.submit": list(script)}


def poll(provider: str, *script: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {POLL[provider]: list(script)}


def each(make: Callable[[str], Case], providers: Iterable[str] = BOTH) -> list[Case]:
    """The same fault at both clouds."""
    return [make(provider) for provider in providers]
