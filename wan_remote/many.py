"""Many clips at once: as many as the account takes, their results in order, and a failure costs no other's result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from .board import Board
from .clock import Clock
from .collecting import Result
from .errors import (
    AuthError,
    Interrupted,
    NoCredit,
    NotSent,
    RateLimited,
    RemoteError,
    SomeFailed,
    SubmissionUnknown,
)
from .keys import Keys
from .request import Request
from .run import PATIENCE, prepare, run
from .session import Folders, open_session
from .watch import Watch, check, in_thread

MOST_UNSENT = 8  # that are sent or stand in line at once: more would only wait and hold their images

Make = Callable[[], Request]
"""Gives a request when its turn comes, so that the images of hundreds are not held at once."""


async def run_all(
    provider: str,
    makes: Sequence[Make],
    *,
    folders: Folders,
    watch: Watch | None = None,
    clock: Clock | None = None,
    keys: Keys | None = None,
    wait_seconds: float = PATIENCE,
    graph: str | None = None,
    names: Sequence[str] | None = None,
) -> list[Result | RemoteError]:
    """Make clips side by side, each as :func:`wan_remote.run.run` does.

    Args:
        provider: the cloud of all of them.
        makes: one a clip; checked before, so that nothing is sent of a list with a mistake in it.
        folders, watch, clock, keys, graph: as for one clip.
        wait_seconds: patience with each clip; that for room in the account begins anew whenever another clip of these
            got further.
        names: what each is called; numbers from 1 if nothing is said.

    Returns:
        in their order, each clip or why there is none.

    Raises:
        RemoteError: there is no key, or nothing can be written: nothing was sent.
        Interrupted: stopped; says how many are here and how many go on.
    """
    watch = watch or Watch()
    session = open_session(provider, folders=folders, watch=watch, clock=clock, keys=keys)
    await in_thread(lambda stop: prepare(session), watch)

    async def one(make: Make, shown: Watch) -> Result:
        request = await in_thread(lambda stop: make(), shown)
        return await run(
            request, folders=folders, watch=shown, clock=clock, keys=keys, wait_seconds=wait_seconds, graph=graph
        )

    if len(makes) == 1:
        try:
            return [await one(makes[0], watch)]
        except RemoteError as error:
            return [error]
    names = names or [str(number) for number in range(1, len(makes) + 1)]
    board = Board(watch, names)
    return await _Many(board, one, names).all(makes)


def all_of(outcomes: Sequence[Result | RemoteError], names: Sequence[str] | None = None) -> list[Result]:
    """The clips, if each of them is there.

    Raises:
        SomeFailed: says which are not and why, and what becomes of the others.
        RemoteError: the one clip that was asked for is not.
    """
    results = [outcome for outcome in outcomes if not isinstance(outcome, RemoteError)]
    if len(results) == len(outcomes):
        return results
    names = names or [str(number) for number in range(1, len(outcomes) + 1)]
    reasons: dict[str, list[str]] = {}
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, RemoteError):
            if len(outcomes) == 1:
                raise outcome
            reasons.setdefault(str(outcome), []).append(name)
    kept = "none is here"
    if results:
        kept = f"what is here ({len(results)}) is kept and costs nothing more when the same inputs are queued again"
    lines = [f"{', '.join(failed)}: {reason}" for reason, failed in reasons.items()]
    raise SomeFailed("\n".join([f"{len(outcomes) - len(results)} of {len(outcomes)} clips failed; {kept}", *lines]))


@dataclass(slots=True)
class _Many:
    board: Board
    one: Callable[[Make, Watch], Awaitable[Result]]
    names: Sequence[str]
    unsent: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_UNSENT))
    moves: int = 0  # how often one of them got further
    posting: asyncio.Lock = field(default_factory=asyncio.Lock)  # one after the other: no two get lost at once
    halted: RemoteError | None = None  # what those that are not sent yet are told

    async def all(self, makes: Sequence[Make]) -> list[Result | RemoteError]:
        """Every outcome. What goes wrong with one ends no other that was sent."""
        tasks = [asyncio.ensure_future(self._outcome(index, make)) for index, make in enumerate(makes)]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        failed = [error for task in tasks if (error := task.exception()) is not None]
        if any(isinstance(error, Interrupted) for error in failed):
            raise Interrupted(self._stopped(len(makes)))
        if failed:  # a mistake of ours
            raise failed[0]
        return [task.result() for task in tasks]

    async def _outcome(self, index: int, make: Make) -> Result | RemoteError:
        while True:
            before = self.moves
            try:
                result = await self._in_its_turn(index, make)
            except RateLimited as error:
                if self.moves > before:  # the account is busy with others of these, and that goes on
                    continue
                self.board.settle(index, str(error))
                return error
            except RemoteError as error:
                self.moves += 1
                self.board.settle(index, str(error))
                return error
            self.moves += 1
            self.board.settle(index)
            return result

    async def _in_its_turn(self, index: int, make: Make) -> Result:
        inside = False

        def enter(request_id: str) -> None:
            nonlocal inside
            if not inside:
                inside, self.moves = True, self.moves + 1
                self.unsent.release()

        await self.unsent.acquire()
        try:
            check(self.board.watch)
            return await self.one(make, self.board.row(index, on_accepted=enter, sending=self._sending))
        finally:
            if not inside:
                self.unsent.release()

    @asynccontextmanager
    async def _sending(self, index: int, looking: bool) -> AsyncIterator[None]:
        """The one at a time that is sent, or looked for. After one whose fate is not known, and after what the account
        can't do for any, the others are not sent: they would get lost, and be paid for, in the same way."""
        async with self.posting:
            if looking:
                yield
                return
            if self.halted is not None:
                raise type(self.halted)(str(self.halted))
            try:
                yield
            except SubmissionUnknown:
                self.halted = NotSent(
                    f"not sent, since it is not known whether {self.names[index]} was taken and the same could happen "
                    "to this one; nothing is billed for it. See what is said there, then queue the same again"
                )
                raise
            except (AuthError, NoCredit) as error:
                self.halted = error
                raise

    def _stopped(self, asked: int) -> str:
        done, _, made, _ = self.board.counts()
        going = f", and in the cloud: {made}" if made else ""
        return (
            f"stopped; clips that are here: {done} of {asked}{going}: queue the same inputs again to go on, what is "
            "here or in the cloud is not paid for again"
        )
