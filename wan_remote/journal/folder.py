"""The folder of entries: found by their inputs, written whole, damaged ones set aside."""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..errors import InvalidRequest, StorageError
from ..files import probe_folder, write_private
from ..locks import held
from ..states import Event, State, after
from ..watch import Watch
from .entry import VERSION, Entry, former_names
from .format import parse, text_of, version_of
from .known import of_inputs
from .locking import SAME, alone
from .tidying import GRAPH, THUMBNAIL, prune

MOST_GRAPH = 512 * 2**10  # bytes

log = logging.getLogger("wan_remote")

PREFERRED = (
    State.FETCHED, State.DONE, State.SUBMITTED, State.MISSING, State.INTENT, State.WITHHELD, State.REJECTED,
    State.FAILED, State.CANCELLED,
)  # fmt: skip
"""Of several entries of the same inputs, which earlier versions made: those that were paid for first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """The folder of entries."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def prepare(self) -> None:
        """Make sure that entries can be written.

        Raises:
            StorageError: they can't; nothing must be paid then.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe_folder(self.folder)
        except OSError as error:
            failed = error.strerror
        else:
            return
        raise StorageError(f"{self.folder} can't be written ({failed}); nothing was sent, choose another folder")

    def read(self, name: str) -> Entry | None:
        """The entry of a fingerprint; a damaged one is set aside and None comes back.

        Raises:
            StorageError: it can't be read, or a newer version of this package wrote it.
        """
        path = self._path(name)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            failed = error.strerror
        else:
            if (version := version_of(text)) > VERSION:
                raise StorageError(
                    f"{path} was written by a newer version of this package (format {version}, this one reads "
                    f"{VERSION}); nothing was sent, update the package"
                )
            found = parse(text)
            if found is not None and found.fingerprint == name:
                return found
            self._set_aside(path)
            return None
        raise StorageError(f"{path} can't be read ({failed}); nothing was sent")

    def find(self, wanted: Entry) -> Entry | None:
        """The job of these inputs under their fingerprint; one that was kept under another name before is moved there.

        Raises:
            StorageError: as for :meth:`read`, or it can't be moved.
        """
        if (found := self.read(wanted.fingerprint)) is not None:
            return found
        if known := of_inputs(self.folder, wanted):
            best = min(known, key=lambda entry: PREFERRED.index(entry.state))
            found = self.write(replace(best, fingerprint=wanted.fingerprint))
            with contextlib.suppress(OSError):
                self._path(best.fingerprint).unlink()
            return found
        names = {wanted.fingerprint, *former_names(wanted)}
        if names & self._damaged() or any(self._path(name).exists() for name in names):  # or it can't be read now
            return self.write(replace(wanted, recovered=True))  # now, so that it is known of
        return None

    def _damaged(self) -> set[str]:
        """The fingerprints whose entry was ever set aside."""
        return {path.name.partition(".")[0] for path in self.folder.glob("*.damaged-*")}

    def write(self, entry: Entry) -> Entry:
        """Put an entry on the disk, whole or not at all, and only then come back.

        Raises:
            StorageError: the disk is full or can't be written.
        """
        path, entry = self._path(entry.fingerprint), replace(entry, v=VERSION)
        try:
            write_private(path, text_of(entry))
        except OSError as error:
            failed = error.strerror
        else:
            return entry
        raise StorageError(f"{path} can't be written ({failed}); make room")

    def update(self, entry: Entry, **changes: Any) -> Entry:
        """:meth:`write` with changes."""
        return self.write(replace(entry, **changes))

    def move(self, entry: Entry, event: Event, **changes: Any) -> Entry:
        """:meth:`write` what happened to a job, with changes."""
        return self.update(entry, state=after(entry.state, event), **changes)

    def keep_beside(self, entry: Entry, thumbnail: bytes, graph: str | None) -> None:
        """What a list of jobs shows besides. Nobody pays twice for want of it, so a full disk is no error here."""
        for ending, data in ((THUMBNAIL, thumbnail), (GRAPH, (graph or "").encode())):
            if data and len(data) <= MOST_GRAPH:
                with contextlib.suppress(OSError):
                    write_private(self._path(entry.fingerprint).with_suffix(ending), data, flush=False)

    def entries(self) -> list[Entry]:
        """All jobs, newest first."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                entry = parse(path.read_bytes())
            except OSError:
                continue
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: -entry.intent_at)

    def entries_of(self, provider: str, request_id: str) -> list[Entry]:
        """The jobs of an id.

        Raises:
            InvalidRequest: they are another cloud's.
        """
        known = [entry for entry in self.entries() if entry.id == request_id]
        if known and all(entry.provider != provider for entry in known):
            raise InvalidRequest(f"request_id={request_id} belongs to {known[0].provider}; choose that provider")
        return [entry for entry in known if entry.provider == provider]

    def prune(self, output: Path) -> None:
        """Forget jobs that ended long ago and never had a clip; see :mod:`.tidying`."""
        prune(self.folder, output, self.clock.time())

    def alone(self, name: str, watch: Watch, first: str = SAME) -> AbstractAsyncContextManager[None]:
        """Hold the job of a fingerprint; see :func:`.locking.alone`."""
        return alone(self._path(name).with_suffix(".lock"), watch, first)

    def claiming(self) -> AbstractContextManager[None]:
        """While an id found in a cloud's list is taken for an entry, nobody else takes one."""
        return held(self.folder / "claims.lock")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _set_aside(self, path: Path) -> None:
        number = sum(1 for _ in self.folder.glob(f"{path.stem}.damaged-*"))
        with contextlib.suppress(OSError):
            os.replace(path, self.folder / f"{path.stem}.damaged-{number}")
        log.warning("a damaged journal entry was set aside as %s.damaged-%d", path.stem, number)
