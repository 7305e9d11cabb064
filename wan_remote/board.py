"""How several clips stand, as one text: a line with the counts, and below it those that one wants to know of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .watch import Watch

MOST_FAILED, MOST_MADE = 3, 8  # lines of a kind; the counts have the others
LONGEST_LINE = 160  # characters


@dataclass(slots=True)
class _Row:
    name: str
    text: str = ""
    id: str = ""  # once the cloud has it
    done: bool = False
    failed: bool = False

    @property
    def line(self) -> str:
        return f"{self.name}: {self.text}"[:LONGEST_LINE]


class Board:
    """Shows all of them on one watch.

    Args:
        watch: where the text goes, and whose stop is everybody's.
        names: of the clips, in their order.
    """

    def __init__(self, watch: Watch, names: Sequence[str]) -> None:
        self.watch = watch
        self._rows = [_Row(name) for name in names]
        self._lock = threading.RLock()  # stages of downloads come from threads
        self._shown = ""

    def row(
        self,
        index: int,
        on_accepted: Callable[[str], None],
        sending: Callable[[int, bool], AbstractAsyncContextManager[None]],
    ) -> Watch:
        """The watch of one clip. ``on_accepted`` gets its id once the cloud has it; ``sending`` is held before."""
        return _RowWatch(self, index, on_accepted, sending)

    def stage(self, index: int, text: str) -> None:
        with self._lock:
            self._rows[index].text = text
            self._show()

    def accept(self, index: int, request_id: str) -> None:
        with self._lock:
            self._rows[index].id = request_id

    def settle(self, index: int, why_not: str = "") -> None:
        """One is over: here, or not, and why."""
        with self._lock:
            row = self._rows[index]
            row.text, row.done, row.failed = why_not, not why_not, bool(why_not)
            self._show()

    def counts(self) -> tuple[int, int, int, int]:
        """How many are done, failed, with the cloud, and not there yet."""
        with self._lock:
            done = sum(row.done for row in self._rows)
            failed = sum(row.failed for row in self._rows)
            made = len(self._made())
            return done, failed, made, len(self._rows) - done - failed - made

    def _made(self) -> list[_Row]:
        return [row for row in self._rows if row.id and not row.done and not row.failed]

    def _text(self) -> str:
        done, failed, made, waiting = self.counts()
        parts = [f"{done} of {len(self._rows)} done"]
        parts += [f"{count} {what}" for count, what in ((failed, "failed"), (made, "in the cloud")) if count]
        parts += [f"{waiting} waiting"] if waiting else []
        next_ones = [row for row in self._rows if row.text and not (row.id or row.done or row.failed)]
        shown = [f"{row.name} failed: {row.text}"[:LONGEST_LINE] for row in self._rows if row.failed][-MOST_FAILED:]
        shown += [row.line for row in self._made()[:MOST_MADE] + next_ones[:1]]
        return "\n".join([", ".join(parts), *shown])

    def _show(self) -> None:
        text, done = self._text(), sum(row.done or row.failed for row in self._rows)
        if text != self._shown:
            self._shown = text
            self.watch.stage(text, done, len(self._rows))


class _RowWatch(Watch):
    def __init__(
        self, board: Board, index: int, on_accepted: Callable[[str], None],
        sending: Callable[[int, bool], AbstractAsyncContextManager[None]],
    ) -> None:  # fmt: skip
        self._board, self._index, self._on_accepted, self._sending = board, index, on_accepted, sending

    def interrupted(self) -> bool:
        return self._board.watch.interrupted()

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self._board.stage(self._index, text)

    def accepted(self, request_id: str) -> None:
        self._board.accept(self._index, request_id)
        self._on_accepted(request_id)

    def sending(self, looking: bool = False) -> AbstractAsyncContextManager[None]:
        return self._sending(self._index, looking)
