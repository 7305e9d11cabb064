"""What a launcher gives a group, so that the group need not know who started the processes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .identity import Process
from .messages import Buffer, Header


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something a rank did.

    Attributes:
        rank: which; None for the launcher itself (its helper process died).
        kind: ``"answer"``, ``"pong"`` (it is there) or ``"gone"`` (its process has ended).
        header, buffers: the message of an answer.
        cause: why it is gone.
    """

    rank: int | None
    kind: str
    header: Header = b""
    buffers: Sequence[Buffer] = field(default_factory=list)
    cause: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """Where a rank has been put.

    Attributes:
        host: address at which the other ranks reach it.
        place: for a person: the device, and the machine where there are several.
        process: its process.
    """

    host: str
    place: str
    process: Process


class Launcher(Protocol):
    """Starts ranks, carries messages, ends ranks. ``inbox`` holds what they did, in the order it was seen."""

    inbox: queue.SimpleQueue[Event]

    def start(self, stop: Callable[[], object]) -> list[Seat]:
        """Start all ranks, in order. Raises RankError, InputError, or what ``stop`` raises (asked several times a
        second); the caller then calls :meth:`end`.
        """

    def send(self, header: Header, buffers: Sequence[Buffer]) -> None:
        """One message to every rank. Never blocks, however frozen a rank is."""

    def send_one(self, rank: int, header: Header, buffers: Sequence[Buffer]) -> None:
        """One message to one rank."""

    def ping(self, ranks: Iterable[int]) -> None:
        """Ask for a sign of life."""

    def gone(self) -> list[Event]:
        """Ranks whose process has ended; for a death that no event told of."""

    def written(self, rank: int | None) -> str:
        """The end of what a rank, or the launcher's own helper, wrote to standard output and error; may be empty."""

    def end(self) -> list[int]:
        """End every process at once; returns the numbers of those still there after the limit."""
