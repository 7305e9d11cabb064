"""What was asked of a cloud and what became of it, on disk before and after each step, so that nothing is paid twice.

One small JSON file a job, named after its inputs. It holds no key and no address (addresses may be signed). ``intent``
is written before a submission, ``submitted`` with the cloud's id before the first poll. Beside it lie a thumbnail of
the first image and the graph that asked, for a list of jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import StorageError
from .files import write_private
from .locks import is_at, opened, try_lock, unique
from .states import Event, State, after
from .watch import SLICE, Watch, check

VERSION, OLDEST = 2, 1  # of the format: the one written, and the first that is read
KEPT = 90 * 86400.0  # seconds that entries of finished jobs are kept
LONGEST_CLAIM = 60.0  # seconds that one claim may take at most; it reads small files
THUMBNAIL, GRAPH = ".jpg", ".graph"  # endings of what lies beside an entry
MOST_GRAPH = 512 * 2**10  # bytes
SAME = "another run of the same inputs"

log = logging.getLogger("wan_remote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One job.

    Attributes:
        fingerprint: of all inputs, whichever key they are sent with.
        provider, model, scope: cloud, its model, and which account paid (a hash of key, organisation and address).
        parameters: as asked, without images; ``seed`` -1 stays -1 here.
        first, last: hashes of the two images; empty for a job that was collected by its id alone.
        take: which of several clips of otherwise equal inputs.
        seed: the one that was sent.
        price: US dollars, as the cloud quoted it before it was sent.
        state: where it stands; see :mod:`wan_remote.states`.
        id: the cloud's name for it, once known.
        earlier: ids of the same inputs that ended without a video; none of them is the one looked for.
        guessed: whether its id was found in a list or given by hand, and the cloud's words do not tell that it is this.
        rivals: fingerprints of other submissions that an id which was guessed could have been of.
        intent_at, submitted_at, ended_at: seconds since 1970, by this machine's clock.
        ahead: seconds that the cloud's clock was before this machine's at the intent, if that is known.
        word: the cloud's last word.
        message: why it failed, or what was said instead of an id.
        note: what is odd about the file.
        seconds: what making it took, 0 if the cloud does not say.
        flagged: whether the cloud marks it as unsafe content; None if it does not say.
        thumbnail: address of a still of it, if anybody may see that one.
        queued_at, updated_at: when the cloud took it and last changed it, by the cloud's clock, if it says.
        file, sha256, size: the result, relative to the output folder.
        submissions: how often it may have reached the cloud since the job before it ended.
    """

    v: int = VERSION
    fingerprint: str
    provider: str
    model: str
    scope: str
    parameters: Mapping[str, Any]
    first: str
    last: str
    take: int = 1
    seed: int
    price: float | None = None
    state: State = State.INTENT
    id: str = ""
    earlier: tuple[str, ...] = ()
    guessed: bool = False
    rivals: tuple[str, ...] = ()
    intent_at: float = 0.0
    ahead: float | None = None
    submitted_at: float = 0.0
    ended_at: float = 0.0
    word: str = ""
    message: str = ""
    note: str = ""
    file: str = ""
    sha256: str = ""
    size: int = 0
    seconds: float = 0.0
    flagged: bool | None = None
    thumbnail: str = ""
    queued_at: float | None = None
    updated_at: float | None = None
    submissions: int = 0
    recovered: bool = False  # its file was damaged; what it knew is lost


TYPES = {
    "int": int,
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str": str,
    "State": str,
    "bool": bool,
    "bool | None": (bool, type(None)),
    "tuple[str, ...]": list,
    "Mapping[str, Any]": dict,
}


def same_inputs(one: Entry, two: Entry) -> bool:
    """Whether two jobs were asked for the same, with whichever key."""
    asked = [
        (entry.provider, entry.model, dict(entry.parameters), entry.first, entry.last, entry.take)
        for entry in (one, two)
    ]
    return asked[0] == asked[1]


def fingerprint(provider: str, model: str, parameters: Mapping[str, Any], first: str, last: str, take: int = 1) -> str:
    """Equal for equal inputs, and for nothing else."""
    return _digest([provider, model, dict(parameters), first, last, take])


def former_fingerprint(entry: Entry, scope: str) -> str:
    """What the entry of such a first take was named after in format 1."""
    return _digest([entry.provider, entry.model, scope, dict(entry.parameters), entry.first, entry.last])


def _digest(inputs: list[Any]) -> str:
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:40]


PREFERRED = (
    State.FETCHED, State.DONE, State.SUBMITTED, State.MISSING, State.INTENT, State.WITHHELD, State.REJECTED,
    State.FAILED, State.CANCELLED,
)  # fmt: skip
"""Of several entries of the same inputs, which only format 1 has: those that were paid for first."""


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
            if (version := _version(text)) > VERSION:
                raise StorageError(
                    f"{path} was written by a newer version of this package (format {version}, this one reads "
                    f"{VERSION}); nothing was sent, update the package"
                )
            found = _parse(text)
            if found is not None and found.fingerprint == name:
                return found
            self._set_aside(path)
            return None
        raise StorageError(f"{path} can't be read ({failed}); nothing was sent")

    def find(self, wanted: Entry) -> Entry | None:
        """The job of these inputs under their fingerprint; one that format 1 kept under another name is moved there.

        Raises:
            StorageError: as for :meth:`read`, or it can't be moved.
        """
        if (found := self.read(wanted.fingerprint)) is not None:
            return found
        known = [entry for entry in self.entries() if same_inputs(entry, wanted)]
        if known:
            best = min(known, key=lambda entry: PREFERRED.index(entry.state))
            found = self.write(replace(best, fingerprint=wanted.fingerprint))
            with contextlib.suppress(OSError):
                self._path(best.fingerprint).unlink()
            return found
        former = former_fingerprint(wanted, wanted.scope)
        if self._was_damaged(wanted.fingerprint) or (wanted.take == 1 and self._was_damaged(former)):
            return self.write(replace(wanted, recovered=True))  # now, so that it is known of
        return None

    def _was_damaged(self, name: str) -> bool:
        """Whether an entry of this fingerprint was ever set aside, or can't be read now."""
        return any(self.folder.glob(f"{name}.damaged-*")) or self._path(name).exists()

    def write(self, entry: Entry) -> Entry:
        """Put an entry on the disk, whole or not at all, and only then come back.

        Raises:
            StorageError: the disk is full or can't be written.
        """
        path, entry = self._path(entry.fingerprint), replace(entry, v=VERSION)
        try:
            write_private(path, json.dumps(asdict(entry), indent=1, sort_keys=True).encode())
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
                entry = _parse(path.read_bytes())
            except OSError:
                continue
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: -entry.intent_at)

    def prune(self, output: Path) -> None:
        """Forget jobs that ended three months ago. Reads only what was not touched for as long.

        A job whose clip is still below ``output`` is kept: the same inputs are that clip, not another bill. Nor is one
        forgotten that somebody works on.
        """
        old = self.clock.time() - KEPT
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, StorageError):
                if path.stat().st_mtime > old:
                    continue
                entry = _parse(path.read_bytes())
                if entry is None or entry.state.unfinished or not 0.0 < entry.ended_at < old:
                    continue
                if entry.file and (output / entry.file).is_file():
                    continue
                lock = path.with_suffix(".lock")
                with opened(lock) as file:
                    if try_lock(file, lock) and _parse(path.read_bytes()) == entry:
                        path.unlink()
                        if os.name != "nt":  # there, an open file can't be taken away
                            lock.unlink(missing_ok=True)
        for ending in (THUMBNAIL, GRAPH):
            for path in self.folder.glob(f"*{ending}"):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < old and not path.with_suffix(".json").exists():
                        path.unlink()

    @contextlib.asynccontextmanager
    async def alone(self, name: str, watch: Watch, first: str = SAME) -> AsyncIterator[None]:
        """Hold the job of a fingerprint: a second run of the same inputs, here or elsewhere, waits for the first.

        Args:
            name: the fingerprint.
            watch: is told whom this one waits for, and says whether to stop.
            first: what to call the run that is waited for.

        The operating system drops the lock with the process that holds it, however that ends.

        Raises:
            StorageError: the file system knows no locks.
        """
        path, waiting = self._path(name).with_suffix(".lock"), False
        while True:
            with opened(path) as file:
                while not try_lock(file, path):
                    if not waiting:
                        watch.stage(f"{first} is under way; waiting for it")
                        waiting = True
                    check(watch)
                    await asyncio.sleep(SLICE)
                if not is_at(file, path):  # taken away meanwhile: whoever comes next would lock another file
                    continue
                yield
                return

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """While an id found in a cloud's list is taken for an entry, nobody else takes one.

        Raises:
            StorageError: somebody else does not end to, or the file system knows no locks.
        """
        path, end = self.folder / "claims.lock", time.monotonic() + LONGEST_CLAIM
        with opened(path) as file:
            while not try_lock(file, path):
                if time.monotonic() > end:
                    raise StorageError(f"{path} is held by another program; nothing was sent, end that one")
                time.sleep(0.05)
            yield

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _set_aside(self, path: Path) -> None:
        number = sum(1 for _ in self.folder.glob(f"{path.stem}.damaged-*"))
        with contextlib.suppress(OSError):
            os.replace(path, self.folder / f"{path.stem}.damaged-{number}")
        log.warning("a damaged journal entry was set aside as %s.damaged-%d", path.stem, number)


def _parse(text: bytes) -> Entry | None:
    """An entry, or None for anything else."""
    row = _row(text)
    if row.get("v") not in range(OLDEST, VERSION + 1):
        return None
    if row.get("state") == "gone":  # of format 1
        row["state"] = State.MISSING.value
    known = {column.name: str(column.type) for column in fields(Entry)}
    values = {name: value for name, value in row.items() if name in known}
    if not all(isinstance(value, TYPES[known[name]]) for name, value in values.items()):  # type: ignore[arg-type]
        return None
    for names in ("earlier", "rivals"):
        if names in values:
            values[names] = tuple(str(name) for name in values[names])
    try:
        if "state" in values:
            values["state"] = State(values["state"])
        return Entry(**values)
    except (TypeError, ValueError):
        return None


def _row(text: bytes) -> dict[str, Any]:
    """The object that stands in a file; an empty one for anything else."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _version(text: bytes) -> int:
    """The format an entry was written in; 0 if it is none."""
    version = _row(text).get("v")
    return version if isinstance(version, int) and not isinstance(version, bool) else 0


def probe_folder(folder: Path) -> None:
    """Write into a folder and take it away again.

    Raises:
        OSError: that fails.
    """
    probe = folder / f".probe-{unique()}"
    probe.write_bytes(b"")
    probe.unlink(missing_ok=True)
