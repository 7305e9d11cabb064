"""Clips that are being brought here in the background, apart from the queue: a download waits for no GPU."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ...wan_remote import Interrupted, RemoteError, Watch


class Collecting:
    """What is under way, by the fingerprint of its job; and why the last try of one failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    def start(self, name: str, make: Callable[[Watch], Coroutine[Any, Any, Any]]) -> None:
        """Do what ``make`` gives, unless that job is being brought already."""
        with self._lock:
            if name in self._stages:
                return
            self._stages[name] = "..."
            self._problems.pop(name, None)
        threading.Thread(target=self._run, args=(name, make), name=f"collect {name[:8]}", daemon=True).start()

    def of(self, name: str) -> tuple[str, str]:
        """The stage a job is at, and why it failed last; both empty where there is nothing to say."""
        with self._lock:
            return self._stages.get(name, ""), self._problems.get(name, "")

    def stage(self, name: str, text: str) -> None:
        with self._lock:
            if name in self._stages:
                self._stages[name] = text

    def _run(self, name: str, make: Callable[[Watch], Coroutine[Any, Any, Any]]) -> None:
        problem = "it could not be collected; the server's log has more"  # of a mistake of this package
        try:
            asyncio.run(make(_Stages(self, name)))
            problem = ""
        except (RemoteError, Interrupted) as error:
            problem = str(error)
        finally:
            with self._lock:
                del self._stages[name]
                if problem:
                    self._problems[name] = problem


class _Stages(Watch):
    def __init__(self, board: Collecting, name: str) -> None:
        self._board, self._name = board, name

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        share = f", {100.0 * done / total:.0f} %" if done is not None and total else ""
        self._board.stage(self._name, text + share)
