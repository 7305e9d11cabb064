"""Keeps the ranks between two runs: weights are read once, not once a run."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress

from .errors import Busy, RankError
from .group import RankGroup
from .lock import RUN_SECONDS, GpuLock, raising


class Pool:
    """At most one group. Whoever drives ranks for longer than one run keeps one pool.

    The group is closed with the interpreter; a driver that is killed takes its ranks with it by itself.

    Attributes:
        lock: who may use the GPUs; every group of this pool has it.
    """

    def __init__(self) -> None:
        self.lock = GpuLock()
        # Around the three below, for no longer than it takes to look at them. Taken again where the garbage collector
        # ends a run whose end closes the pool.
        self._change = threading.RLock()
        self._key: Hashable = None
        self._group: RankGroup | None = None  # also while it starts, so that it can be ended then
        self._ending = False
        atexit.register(self._at_exit)

    def lease(
        self,
        key: Hashable,
        factory: Callable[[], RankGroup],
        stop: Callable[[], object] | None = None,
        limit: float = RUN_SECONDS,
    ) -> RankGroup:
        """The group for ``key``, started: the one there is, or a fresh one after that has been closed.

        A group that has ended (a rank failed in the last run) or has lost a rank since is replaced by a fresh one,
        once: if that does not start either, its error is raised and nothing else is tried.

        A group in use (:meth:`RankGroup.in_use`, a call) is not closed: this waits.

        Args:
            key: everything the ranks' state depends on: weights, dtype, LoRAs, degrees, devices.
            factory: makes the group; called only when a fresh one is needed.
            stop: the user's stop, as in :meth:`RankGroup.call`: waiting, starting and loading can be stopped too.
            limit: seconds to wait for a run that uses the GPUs.

        Raises:
            Busy: a run used the GPUs for longer than ``limit``, or this thread uses them with another setup.
            InputError, RankError, Cancelled: as :meth:`RankGroup.start`.
        """
        mine = self.lock.mine
        with self.lock.held(limit, raising(stop)):
            return self._lease(key, factory, stop, mine)

    def _lease(
        self, key: Hashable, factory: Callable[[], RankGroup], stop: Callable[[], object] | None, mine: bool
    ) -> RankGroup:
        group = self._group
        if group is not None and self._key == key and (group.alive if mine else group.all_there(stop)):
            return group
        if mine and group is not None and group.alive:
            raise Busy("this run uses the GPUs with another setup; end it before the setup is changed")
        self.close("its GPUs were wanted for another setup")
        fresh = factory()
        fresh.lock = self.lock
        with self._change:
            if self._ending:
                raise RankError("this program is ending", stage="starting")
            self._key, self._group = key, fresh
        try:
            fresh.start(stop)
        except BaseException:
            with self._change:
                if self._group is fresh:
                    self._key, self._group = None, None
            raise
        return fresh

    def close(self, why: str = "it was closed") -> None:
        """End the group, if there is one, and free its GPUs; at once, also while it starts or works.

        Args:
            why: what whoever uses it reads.
        """
        with self._change:
            group, self._group, self._key = self._group, None, None
        if group is not None:
            group.close(why)

    def close_if_idle(self, why: str = "nobody used it for a while") -> bool:
        """:meth:`close`, unless the GPUs are in use or ranks are being started; whether it was done."""
        with suppress(Busy), self.lock.held(0):
            self.close(why)
            return True
        return False

    def _at_exit(self) -> None:
        """Wait for no run and no loading: the thread that does it may be one that the program does not wait for."""
        with self._change:
            self._ending = True
        self.close("this program is ending")
