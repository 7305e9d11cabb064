"""A clip from a cloud, from two pictures to a file: the story in one screen.

    check -> journal -> (pick up what is under way | encode, submit) -> wait -> download -> journal

At every point the process may die: what is on disk is enough for the same inputs to go on from there, and never enough
to pay twice.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from .clock import Clock
from .errors import BadResponse, InvalidRequest, ResultExpired, StorageError
from .images import Frame, encode, fingerprint, fitted
from .inherit import paid_elsewhere
from .job import Job, safe_id
from .journal import FETCHED, INTENT, OVER, SUBMITTED, Entry, probe_folder
from .journal import fingerprint as fingerprint_of
from .keys import Keys
from .polling import still_going, wait
from .reconcile import NotThere, reconcile
from .request import MAX_SEED, RANDOM_SEED, Request, frame_size
from .session import Folders, Session, open_session
from .submission import redrawn, submit
from .transport import download, refuse_address
from .transport.download import File
from .watch import Watch, check, in_thread

PATIENCE = 1800.0  # seconds
ROOM = 256 * 2**20  # bytes that have to be free for a video before one is paid for


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A clip on disk.

    Attributes:
        path: of the MP4 file, as the cloud made it.
        provider, request_id: which job it was.
        seed: the one it was made with, also where -1 was asked for.
        resumed: whether the job was there before this call; nothing was paid then.
        seconds: what making it took, if the cloud says.
        sha256, size: of the file.
    """

    path: Path
    provider: str
    request_id: str
    seed: int
    resumed: bool
    seconds: float | None
    sha256: str
    size: int


async def run(
    request: Request,
    *,
    folders: Folders,
    watch: Watch | None = None,
    clock: Clock | None = None,
    keys: Keys | None = None,
    wait_seconds: float = PATIENCE,
    new: bool = False,
) -> Result:
    """Make a clip, or go on with the one that these inputs were sent for before.

    Args:
        request: what is wanted.
        folders: where the journal and the videos are kept.
        watch: shows stages and says whether to stop.
        clock: time.
        keys: where API keys are.
        wait_seconds: patience for the cloud; running out of it loses nothing.
        new: make and pay for another clip though these inputs have a finished one, or one that was perhaps
            submitted. One that is known to be under way is waited for.

    Raises:
        RemoteError: see :mod:`wan_remote.errors`; the message says what to do.
        Interrupted: stopped. A job that was submitted goes on and is collected by the same inputs.
    """
    session = open_session(request.provider, folders=folders, watch=watch, clock=clock, keys=keys)
    pictures = await in_thread(lambda stop: _pictures(session, request), session.watch)  # before anything is paid
    prepare(session)
    name = fingerprint_of(
        request.provider, request.model, session.scope, request.parameters, pictures.first, pictures.last
    )
    async with session.journal.alone(name, session.watch):
        entry = session.journal.read(name)
        if new and (entry is None or entry.state != SUBMITTED):
            if entry is not None:
                session.journal.archive(entry)
            entry = _new_entry(session, request, name, pictures)
        elif entry is None:
            entry = await paid_elsewhere(session, wanted := _new_entry(session, request, name, pictures)) or wanted
            if session.journal.was_damaged(name) and not entry.id:
                entry = session.journal.update(entry, recovered=True)  # now, so that it grows old
        elif entry.state in OVER:  # the same inputs are a new job, and a random seed is drawn anew
            entry = replace(redrawn(entry), seed=_drawn(request.seed))
        resumed = bool(entry.id)
        if entry.state == FETCHED and (kept := _kept(session, entry)) is not None:
            return _result(entry, kept, resumed=True)
        entry, job = await _submitted(session, entry, pictures.frames)
        return await _collect(session, entry, job, wait_seconds, resumed=resumed)


async def fetch(
    provider: str,
    request_id: str,
    *,
    folders: Folders,
    watch: Watch | None = None,
    clock: Clock | None = None,
    keys: Keys | None = None,
    wait_seconds: float = PATIENCE,
) -> Result:
    """Collect a job by its id, also one that was not submitted here. Pays nothing.

    Raises:
        InvalidRequest: an id that can't be one, or is known to be the other cloud's.
        RemoteError, Interrupted: as for :func:`run`.
    """
    wanted = safe_id(request_id.strip())
    if wanted is None:
        raise InvalidRequest(f"request_id={request_id[:60]!r} is no id of a request; copy it from the node or the list")
    session = open_session(provider, folders=folders, watch=watch, clock=clock, keys=keys)
    prepare(session)
    known = [entry for entry in session.journal.entries() if entry.id == wanted]
    if known and all(entry.provider != provider for entry in known):
        raise InvalidRequest(f"request_id={wanted} belongs to {known[0].provider}; choose that provider")
    entry = next((entry for entry in known if entry.provider == provider), None) or _foreign(session, wanted)
    current = session.journal.read(entry.fingerprint)
    if current is not None and current.id != wanted:  # another job of the same inputs has taken its place
        entry = replace(entry, fingerprint=_foreign(session, wanted).fingerprint)
    async with session.journal.alone(entry.fingerprint, session.watch):
        current = session.journal.read(entry.fingerprint)
        entry = current if current is not None and current.id == wanted else entry
        if entry.state == FETCHED and (kept := _kept(session, entry)) is not None:
            return _result(entry, kept, resumed=True)
        return await _collect(session, replace(entry, id=wanted), None, wait_seconds, resumed=True)


def prepare(session: Session) -> None:
    """Make sure that journal and video can be written, before anything is paid.

    Raises:
        StorageError: they can't.
    """
    session.journal.prepare()
    folder = session.folders.output / session.provider.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        failed = f"can't be written ({error.strerror})"
    else:
        if free >= ROOM:
            session.journal.prune(session.folders.output)
            return
        failed = f"has {free / 2**20:.0f} MiB left and a clip may need {ROOM / 2**20:.0f}"
    raise StorageError(f"{folder} {failed}; nothing was sent, make room or choose another folder")


async def _submitted(session: Session, entry: Entry, frames: tuple[Frame, Frame]) -> tuple[Entry, Job | None]:
    """The entry with its id on disk: picked up, found again, or sent now."""
    if entry.id:
        session.watch.stage(f"going on with {entry.id} at {session.provider.label}")
        return entry, None
    if entry.state == INTENT and (entry.submissions or entry.recovered):  # perhaps sent, its answer never came here
        try:
            return await reconcile(session, entry)
        except NotThere:
            entry = replace(entry, recovered=False)
    return await submit(session, entry, frames)


async def _collect(session: Session, entry: Entry, job: Job | None, wait_seconds: float, *, resumed: bool) -> Result:
    """Wait for a submitted job and bring its file here. An address that has expired is asked for once more."""
    entry, job = await wait(session, entry, job, wait_seconds)
    for last in (False, True):
        try:
            file = await _download(session, entry, job)
            break
        except ResultExpired as error:
            failed = str(error)
        if last:
            raise ResultExpired(
                f"{failed}; the job {entry.id} is over: to have it made and paid for again, change the seed or ask for "
                "a new one"
            )
        entry, job = await wait(session, entry, None, wait_seconds)
    entry = session.journal.update(
        entry,
        state=FETCHED,
        file=str(file.path.relative_to(session.folders.output)),
        sha256=file.sha256,
        size=file.size,
    )
    session.watch.stage(f"{session.provider.label}: here it is ({entry.id})", 1.0, 1.0)
    return _result(entry, file.path, resumed=resumed)


async def _download(session: Session, entry: Entry, job: Job) -> File:
    """To a file named after the job."""
    address, allow = job.url, session.allow_loopback
    path = session.folders.output / session.provider.name / f"{entry.id}.mp4"
    session.watch.stage("downloading the video", 0.0)

    def work(stop: threading.Event) -> File:
        if why := refuse_address(address, allow_loopback=allow):  # here, since it asks for the host's address
            raise BadResponse(
                f"{session.provider.label} names a place for the video that can't be used: {why} ({entry.id})"
            )

        def tell(done: int, total: int | None) -> None:
            session.watch.stage(f"downloading the video, {done / 2**20:.1f} MiB", done, total)

        return download(address, path, allow_loopback=allow, stop=stop, on_bytes=tell)

    check(session.watch, still_going(session, entry))
    return await in_thread(work, session.watch, still_going(session, entry))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pictures:
    frames: tuple[Frame, Frame]
    first: str  # hashes of the pixels
    last: str


def _pictures(session: Session, request: Request) -> _Pictures:
    """Both pictures fitted and encoded; one that does not fit the cloud's budget is found out here."""
    budget, size = session.provider.picture_bytes, frame_size(request)
    first, last = (fitted(picture, *size, request.fit) for picture in (request.first, request.last))
    frames = encode(first, budget, "first picture"), encode(last, budget, "last picture")
    return _Pictures(frames=frames, first=fingerprint(first), last=fingerprint(last))


def _new_entry(session: Session, request: Request, name: str, pictures: _Pictures) -> Entry:
    return Entry(
        fingerprint=name,
        provider=request.provider,
        model=request.model,
        scope=session.scope,
        parameters=request.parameters,
        first=pictures.first,
        last=pictures.last,
        seed=_drawn(request.seed),
        intent_at=session.clock.time(),
    )


def _drawn(seed: int) -> int:
    """Drawn here and not in the cloud, so that a run can be told and repeated."""
    return secrets.randbelow(MAX_SEED + 1) if seed == RANDOM_SEED else seed


def _foreign(session: Session, request_id: str) -> Entry:
    """An entry for a job that was submitted somewhere else."""
    provider = session.provider
    return Entry(
        fingerprint=sha256(f"{provider.name} {session.scope} {request_id}".encode()).hexdigest()[:40],
        provider=provider.name,
        model=provider.model,
        scope=session.scope,
        parameters={},
        first="",
        last="",
        seed=RANDOM_SEED,
        state=SUBMITTED,
        id=request_id,
        intent_at=session.clock.time(),
    )


def _kept(session: Session, entry: Entry) -> Path | None:
    """The file of a finished job, if it is still what it was."""
    path = session.folders.output / entry.file
    try:
        whole = path.is_file() and sha256(path.read_bytes()).hexdigest() == entry.sha256
    except OSError:
        whole = False
    return path if whole else None


def _result(entry: Entry, path: Path, *, resumed: bool) -> Result:
    return Result(
        path=path,
        provider=entry.provider,
        request_id=entry.id,
        seed=entry.seed,
        resumed=resumed,
        seconds=entry.seconds or None,
        sha256=entry.sha256,
        size=entry.size,
    )


__all__ = ["Folders", "Result", "fetch", "prepare", "run"]
