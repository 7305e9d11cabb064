"""What was asked of a cloud and what became of it, on disk before and after each step, so that nothing is paid twice.

One small JSON file a job, named after its fingerprint. It holds no key, no picture and no address (addresses may be
signed). ``intent`` is written before a submission, ``submitted`` with the cloud's id before the first poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import StorageError
from .watch import SLICE, Watch, check

VERSION = 1
INTENT, SUBMITTED, MISSING, DONE, FETCHED = "intent", "submitted", "missing", "done", "fetched"
REJECTED, FAILED, CANCELLED, GONE = "rejected", "failed", "cancelled", "gone"
OPEN = (INTENT, SUBMITTED, MISSING, DONE)  # paid for or perhaps paid for, and not yet here
OVER = (REJECTED, FAILED, CANCELLED, GONE)  # the same inputs are a new job
KEPT = 30 * 86400.0  # seconds that entries of finished jobs are kept
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what a lock that somebody has answers
LONGEST_CLAIM = 60.0  # seconds that one claim may take at most; it reads small files

log = logging.getLogger("wan_remote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One job.

    Attributes:
        fingerprint: of cloud, account and all inputs.
        provider, model, scope: cloud, its model, and which account (a hash of key, organisation and address).
        parameters: as asked, without pictures; ``seed`` -1 stays -1 here.
        first, last: hashes of the two pictures.
        seed: the one that was sent.
        state: where it stands; see above. ``missing`` was submitted and the cloud says it knows no such job, which is
            not believed while its list does not say so too.
        id: the cloud's name for it, once known.
        earlier: ids of the same inputs that ended without a video; none of them is the one looked for.
        intent_at, submitted_at, ended_at: seconds since 1970, by this machine's clock.
        ahead: seconds that the cloud's clock was before this machine's at the intent, if that is known.
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
    earlier: tuple[str, ...] = ()
    intent_at: float = 0.0
    ahead: float | None = None
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


TYPES = {
    "int": int,
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str": str,
    "bool": bool,
    "tuple[str, ...]": list,
    "Mapping[str, Any]": dict,
}


def same_inputs(one: Entry, two: Entry) -> bool:
    """Whether two jobs were asked for the same, in whichever account."""
    asked = [(entry.provider, entry.model, dict(entry.parameters), entry.first, entry.last) for entry in (one, two)]
    return asked[0] == asked[1]


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

    def was_damaged(self, name: str) -> bool:
        """Whether an entry of this fingerprint was ever set aside."""
        return any(self.folder.glob(f"{name}.damaged-*"))

    def write(self, entry: Entry) -> Entry:
        """Put an entry on the disk, whole or not at all, and only then come back.

        Raises:
            StorageError: the disk is full or can't be written.
        """
        path = self._path(entry.fingerprint)
        temporary = path.with_suffix(f".tmp-{unique()}")
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

    def prune(self, output: Path) -> None:
        """Forget jobs that ended a month ago. Reads only what was not touched for as long.

        A job whose clip is still below ``output`` is kept: the same inputs are that clip, not another bill. Nor is one
        forgotten that somebody works on.
        """
        old = self.clock.time() - KEPT
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, StorageError):
                if path.stat().st_mtime > old:
                    continue
                entry = _parse(path.read_bytes())
                if entry is None or entry.state in OPEN or not 0.0 < entry.ended_at < old:
                    continue
                if entry.file and (output / entry.file).is_file():
                    continue
                lock = path.with_suffix(".lock")
                with self._open_lock(lock) as file:
                    if try_lock(file, lock) and _parse(path.read_bytes()) == entry:
                        path.unlink()
                        if os.name != "nt":  # there, an open file can't be taken away
                            lock.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def alone(self, name: str, watch: Watch) -> AsyncIterator[None]:
        """Hold the job of a fingerprint: a second run of the same inputs, here or elsewhere, waits for the first.

        The operating system drops the lock with the process that holds it, however that ends.

        Raises:
            StorageError: the file system knows no locks.
        """
        path, waiting = self._path(name).with_suffix(".lock"), False
        while True:
            with self._open_lock(path) as file:
                while not try_lock(file, path):
                    if not waiting:
                        watch.stage("another run of the same inputs is under way; waiting for it")
                        waiting = True
                    check(watch)
                    await asyncio.sleep(SLICE)
                if not _is_at(file, path):  # taken away meanwhile: whoever comes next would lock another file
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
        with self._open_lock(path) as file:
            while not try_lock(file, path):
                if time.monotonic() > end:
                    raise StorageError(f"{path} is held by another program; nothing was sent, end that one")
                time.sleep(0.05)
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
    row = _row(text)
    if row.get("v") != VERSION:
        return None
    known = {column.name: str(column.type) for column in fields(Entry)}
    values = {name: value for name, value in row.items() if name in known}
    if not all(isinstance(value, TYPES[known[name]]) for name, value in values.items()):  # type: ignore[arg-type]
        return None
    if "earlier" in values:
        values["earlier"] = tuple(str(name) for name in values["earlier"])
    try:
        return Entry(**values)
    except TypeError:
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


def unique() -> str:
    """Part of a file name that no other process, thread or machine makes."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def probe_folder(folder: Path) -> None:
    """Write into a folder and take it away again.

    Raises:
        OSError: that fails.
    """
    probe = folder / f".probe-{unique()}"
    probe.write_bytes(b"")
    probe.unlink(missing_ok=True)


def _is_at(file: Any, path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    if os.name == "nt":
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def try_lock(file: Any, path: Path) -> bool:
    """Lock an open file, or say that somebody else has it.

    Raises:
        StorageError: the file system has no locks, so that nothing would keep two runs apart.
    """
    try:
        _lock(file)
    except OSError as error:
        if error.errno in HELD:
            return False
        failed = error.strerror
    else:
        return True
    raise StorageError(f"{path} can't be locked ({failed}); nothing was sent, choose a folder on a local disk")


if os.name == "nt":
    import msvcrt

    def _lock(file: Any) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:
    import fcntl

    def _lock(file: Any) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
