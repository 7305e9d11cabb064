"""What was asked of a cloud and what became of it, on disk before and after each step, so that nothing is paid twice.

One small JSON file a job, named after its fingerprint. It holds no key, no picture and no address (addresses may be
signed). ``intent`` is written before a submission, ``submitted`` with the cloud's id before the first poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import StorageError
from .watch import SLICE, Watch, check

VERSION = 1
INTENT, SUBMITTED, DONE, FETCHED = "intent", "submitted", "done", "fetched"
REJECTED, FAILED, CANCELLED, GONE = "rejected", "failed", "cancelled", "gone"
OPEN = (INTENT, SUBMITTED, DONE)  # paid for or perhaps paid for, and not yet here
OVER = (REJECTED, FAILED, CANCELLED, GONE)  # the same inputs are a new job
KEPT = 30 * 86400.0  # seconds that entries of finished jobs are kept

log = logging.getLogger("wan_remote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One job.

    Attributes:
        fingerprint: of cloud, account and all inputs.
        provider, model, scope: cloud, its model, and which account (a hash of the key).
        parameters: as asked, without pictures; ``seed`` -1 stays -1 here.
        first, last: hashes of the two pictures.
        seed: the one that was sent.
        state: where it stands; see above.
        id: the cloud's name for it, once known.
        intent_at, submitted_at, ended_at: seconds since 1970, by this machine's clock.
        word: the cloud's last word.
        message: why it failed.
        file, sha256, size: the result, relative to the output folder.
        submissions: how often it was sent.
    """

    v: int = VERSION
    fingerprint: str
    provider: str
    model: str
    scope: str
    parameters: Mapping[str, Any]
    first: str
    last: str
    seed: int
    state: str = INTENT
    id: str = ""
    intent_at: float = 0.0
    submitted_at: float = 0.0
    ended_at: float = 0.0
    word: str = ""
    message: str = ""
    file: str = ""
    sha256: str = ""
    size: int = 0
    seconds: float = 0.0
    submissions: int = 0
    recovered: bool = False  # its file was damaged; what it knew is lost


TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "Mapping[str, Any]": dict}


def fingerprint(provider: str, model: str, scope: str, parameters: Mapping[str, Any], first: str, last: str) -> str:
    """Equal for equal inputs in one account, and for nothing else."""
    text = json.dumps([provider, model, scope, dict(sorted(parameters.items())), first, last], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:40]


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
        probe = self.folder / f".probe-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            failed = error.strerror
        else:
            return
        raise StorageError(f"{self.folder} can't be written ({failed}); nothing was sent, choose another folder")

    def read(self, name: str) -> Entry | None:
        """The entry of a fingerprint; a damaged one is set aside and None comes back."""
        path = self._path(name)
        try:
            found = _parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            failed = error.strerror
        else:
            if found is not None and found.fingerprint == name:
                return found
            self._set_aside(path)
            return None
        raise StorageError(f"{path} can't be read ({failed}); nothing was sent")

    def was_damaged(self, name: str) -> bool:
        """Whether an entry of this fingerprint was ever set aside."""
        return any(self.folder.glob(f"{name}.damaged-*"))

    def write(self, entry: Entry) -> Entry:
        """Put an entry on the disk, whole or not at all, and only then come back.

        Raises:
            StorageError: the disk is full or can't be written.
        """
        path = self._path(entry.fingerprint)
        temporary = path.with_suffix(f".tmp-{os.getpid()}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(asdict(entry), file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            self._sync_folder()
        except OSError as error:
            failed = error.strerror
        else:
            return entry
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} can't be written ({failed}); make room")

    def update(self, entry: Entry, **changes: Any) -> Entry:
        """:meth:`write` with changes."""
        return self.write(replace(entry, **changes))

    def archive(self, entry: Entry) -> None:
        """Keep an entry under another name, so that the same inputs are a new job."""
        with contextlib.suppress(OSError):
            os.replace(
                self._path(entry.fingerprint), self.folder / f"{entry.fingerprint}.{entry.id or 'none'}.old.json"
            )

    def entries(self) -> list[Entry]:
        """All jobs, newest first, archived ones too."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                entry = _parse(path.read_bytes())
            except OSError:
                continue
            if entry is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: -entry.intent_at)

    def prune(self) -> None:
        """Forget jobs that ended a month ago; their files stay. Reads only what was not touched for as long."""
        old = self.clock.time() - KEPT
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime > old:
                    continue
                entry = _parse(path.read_bytes())
                if entry is not None and entry.state not in OPEN and 0.0 < entry.ended_at < old:
                    path.unlink()
                    path.with_suffix(".lock").unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def alone(self, name: str, watch: Watch) -> AsyncIterator[None]:
        """Hold the job of a fingerprint: a second run of the same inputs, here or elsewhere, waits for the first.

        The operating system drops the lock with the process that holds it, however that ends.
        """
        with self._open_lock(self._path(name).with_suffix(".lock")) as file:
            waiting = False
            while not _try_lock(file):
                if not waiting:
                    watch.stage("another run of the same inputs is under way; waiting for it")
                    waiting = True
                check(watch)
                await asyncio.sleep(SLICE)
            yield

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """While an id found in a cloud's list is taken for an entry, nobody else takes one."""
        with self._open_lock(self.folder / "claims.lock") as file:
            _lock(file)
            yield

    @contextlib.contextmanager
    def _open_lock(self, path: Path) -> Iterator[Any]:
        try:
            file = path.open("a+b")
        except OSError as error:
            failed = error.strerror
        else:
            with file:
                yield file
            return
        raise StorageError(f"{path} can't be written ({failed}); nothing was sent, choose another folder")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _set_aside(self, path: Path) -> None:
        number = sum(1 for _ in self.folder.glob(f"{path.stem}.damaged-*"))
        with contextlib.suppress(OSError):
            os.replace(path, self.folder / f"{path.stem}.damaged-{number}")
        log.warning("a damaged journal entry was set aside as %s.damaged-%d", path.stem, number)

    def _sync_folder(self) -> None:
        if os.name == "nt":
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _parse(text: bytes) -> Entry | None:
    """An entry, or None for anything else."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("v") != VERSION:
        return None
    known = {column.name: str(column.type) for column in fields(Entry)}
    values = {name: value for name, value in row.items() if name in known}
    if not all(isinstance(value, TYPES[known[name]]) for name, value in values.items()):  # type: ignore[arg-type]
        return None
    try:
        return Entry(**values)
    except TypeError:
        return None


def _try_lock(file: Any) -> bool:
    try:
        _lock(file, wait=False)
    except OSError:
        return False
    return True


if os.name == "nt":
    import msvcrt

    def _lock(file: Any, wait: bool = True) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _lock(file: Any, wait: bool = True) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
