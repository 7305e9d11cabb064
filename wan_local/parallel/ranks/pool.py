"""Keeps the ranks between two runs: weights are read once, not once a run."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Hashable

from .group import RankGroup


class Pool:
    """At most one group. Whoever drives ranks for longer than one run keeps one pool.

    The group is closed with the interpreter; a driver that is killed takes its ranks with it by itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._group: RankGroup | None = None
        atexit.register(self.close)

    def lease(
        self, key: Hashable, factory: Callable[[], RankGroup], stop: Callable[[], object] | None = None
    ) -> RankGroup:
        """The group for ``key``, started: the one there is, or a fresh one after that has been closed.

        A group that has ended (a rank failed in the last run) is replaced by a fresh one, once: if that does not
        start either, its error is raised and nothing else is tried.

        Args:
            key: everything the ranks' state depends on: weights, dtype, LoRAs, degrees, devices.
            factory: makes the group; called only when a fresh one is needed.
            stop: the user's stop, as in :meth:`RankGroup.call`: starting and loading can be stopped too.
        """
        with self._lock:
            if self._group is not None and self._key == key and self._group.settle(stop):
                return self._group
            self._drop()
            group = factory()
            group.start(stop)
            self._key, self._group = key, group
            return group

    def close(self) -> None:
        """End the group, if there is one, and free its cards."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        group, self._group, self._key = self._group, None, None
        if group is not None:
            group.close()
