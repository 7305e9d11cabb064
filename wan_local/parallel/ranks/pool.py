"""Keeps the ranks between two runs: weights are read once, not once a run."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress

from .errors import Busy, RankError
from .group import RankGroup, stopper
from .turn import TURN_SECONDS, Turn


class Pool:
    """At most one group. Whoever drives ranks for longer than one run keeps one pool.

    The group is closed with the interpreter; a driver that is killed takes its ranks with it by itself.

    Attributes:
        turn: who may use the cards; every group of this pool has it.
    """

    def __init__(self) -> None:
        self.turn = Turn()
        # Around the three below, for no longer than it takes to look at them. Taken again where the garbage collector
        # ends a run whose end closes the pool.
        self._lock = threading.RLock()
        self._key: Hashable = None
        self._group: RankGroup | None = None  # also while it starts, so that it can be ended then
        self._ending = False
        atexit.register(self._at_exit)

    def lease(
        self,
        key: Hashable,
        factory: Callable[[], RankGroup],
        stop: Callable[[], object] | None = None,
        limit: float = TURN_SECONDS,
    ) -> RankGroup:
        """The group for ``key``, started: the one there is, or a fresh one after that has been closed.

        A group that has ended (a rank failed in the last run) or has lost a rank since is replaced by a fresh one,
        once: if that does not start either, its error is raised and nothing else is tried.

        A group in use (:meth:`hold`, :meth:`RankGroup.in_use`, a call) is not closed: this waits.

        Args:
            key: everything the ranks' state depends on: weights, dtype, LoRAs, degrees, devices.
            factory: makes the group; called only when a fresh one is needed.
            stop: the user's stop, as in :meth:`RankGroup.call`: waiting, starting and loading can be stopped too.
            limit: seconds to wait for a run that uses the cards.

        Raises:
            Busy: a run used the cards for longer than ``limit``, or this thread holds them with another setup.
            InputError, RankError, Cancelled: as :meth:`RankGroup.start`.
        """
        held = self.turn.mine
        with self.turn.taken(limit, stopper(stop)):
            return self._lease(key, factory, stop, held)

    @contextmanager
    def hold(
        self,
        key: Hashable,
        factory: Callable[[], RankGroup],
        stop: Callable[[], object] | None = None,
        limit: float = TURN_SECONDS,
    ) -> Iterator[RankGroup]:
        """:meth:`lease`, and :meth:`RankGroup.in_use` without a gap between the two: for a whole run."""
        held = self.turn.mine
        with self.turn.taken(limit, stopper(stop)):
            yield self._lease(key, factory, stop, held)

    def _lease(
        self, key: Hashable, factory: Callable[[], RankGroup], stop: Callable[[], object] | None, held: bool
    ) -> RankGroup:
        group = self._group
        if group is not None and self._key == key and (group.alive if held else group.complete(stop)):
            return group
        if held and group is not None and group.alive:
            raise Busy("this run holds the cards with another setup; end it before the setup is changed")
        self.close("its cards were wanted for another setup")
        fresh = factory()
        fresh.turn = self.turn
        with self._lock:
            if self._ending:
                raise RankError("this program is ending", stage="starting")
            self._key, self._group = key, fresh
        try:
            fresh.start(stop)
        except BaseException:
            with self._lock:
                if self._group is fresh:
                    self._key, self._group = None, None
            raise
        return fresh

    def close(self, why: str = "it was closed") -> None:
        """End the group, if there is one, and free its cards; at once, also while it starts or works.

        Args:
            why: what whoever uses it reads.
        """
        with self._lock:
            group, self._group, self._key = self._group, None, None
        if group is not None:
            group.close(why)

    def close_if_idle(self, why: str = "nobody used it for a while") -> bool:
        """:meth:`close`, unless the cards are in use or ranks are being started; whether it was done."""
        with suppress(Busy), self.turn.taken(0):
            self.close(why)
            return True
        return False

    def _at_exit(self) -> None:
        """Wait for no run and no loading: the thread that does it may be one that the program does not wait for."""
        with self._lock:
            self._ending = True
        self.close("this program is ending")
