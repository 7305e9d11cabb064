"""A clip from a cloud, from two images to a file: the story in one screen.

    check -> journal -> (pick up what is under way | stand in line, submit) -> wait -> download -> journal

At every point the process may die: what is on disk is enough for the same inputs to go on from there, and never enough
to pay twice.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from .clock import Clock
from .collecting import Result, collect, kept
from .errors import Moderated, StorageError
from .files import probe_folder
from .images import Frame, elsewhere, encode, fingerprint, fitted, thumbnail
from .job import Job, asked_id
from .journal import Entry
from .journal import fingerprint as fingerprint_of
from .keys import Keys
from .polling import outcome
from .providers.base import OK
from .reconcile import NotThere, accepted, open_for, reconcile
from .request import MAX_SEED, RANDOM_SEED, Request
from .retry import once
from .session import Folders, Session, open_session
from .states import Event, State
from .submission import submit
from .transport import Lost
from .uploads import forget
from .watch import Watch, in_thread, to_the_end

PATIENCE = 1800.0  # seconds
TIDY = 86400.0  # seconds between two times that a program tidies a journal
ROOM = 256 * 2**20  # bytes that have to be free for a video before one is paid for


async def run(
    request: Request,
    *,
    folders: Folders,
    watch: Watch | None = None,
    clock: Clock | None = None,
    keys: Keys | None = None,
    wait_seconds: float = PATIENCE,
    graph: str | None = None,
) -> Result:
    """Make a clip, or go on with the one that these inputs were sent for before, with whichever key.

    Args:
        request: what is wanted.
        folders: where the journal and the videos are kept.
        watch: shows stages and says whether to stop.
        clock: time.
        keys: where API keys are.
        wait_seconds: patience for the cloud, until it has room for the job and from then on until it is done; running
            out of it loses nothing.
        graph: what asked for it, as JSON, kept for a list of jobs.

    Raises:
        RemoteError: see :mod:`wan_remote.errors`; the message says what to do.
        Interrupted: stopped. A job that was submitted goes on and is collected by the same inputs.
    """
    session = open_session(request.provider, folders=folders, watch=watch, clock=clock, keys=keys)
    images = await in_thread(lambda stop: _images(session, request), session.watch)  # before anything is paid
    await in_thread(lambda stop: prepare(session), session.watch)
    wanted = _wanted(session, request, images)
    async with session.journal.alone(wanted.fingerprint, session.watch):
        entry = await to_the_end(lambda stop: session.journal.find(wanted), session.watch) or wanted
        if entry.state is State.WITHHELD:  # a filter does not change its mind for money
            raise Moderated(outcome(session, entry))
        if (here := await kept(session, entry)) is not None:
            return here
        if entry.state in (State.FAILED, State.CANCELLED):
            if entry.state is State.FAILED:  # perhaps since an image is broken where it lies, or gone
                forget(session, images.frames, before=entry.ended_at)
            entry = _unsure(session, entry) if entry.guessed else _anew(entry, request)
        resumed = bool(entry.id)
        entry, job = await _submitted(session, entry, images, wait_seconds, graph)
        session.watch.accepted(entry.id)
        return await collect(session, entry, job, wait_seconds, resumed=resumed)


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
    wanted = asked_id(request_id)
    session = open_session(provider, folders=folders, watch=watch, clock=clock, keys=keys)
    await in_thread(lambda stop: prepare(session), session.watch)
    known = await in_thread(lambda stop: session.journal.entries_of(provider, wanted), session.watch)
    mine = [entry for entry in known if entry.first]
    entry = mine[0] if mine else await _claimed(session, wanted) or _foreign(session, wanted)
    async with session.journal.alone(entry.fingerprint, session.watch, f"a run that has {wanted}"):
        current = session.journal.read(entry.fingerprint)
        entry = current if current is not None and current.id == wanted else entry
        if (here := await kept(session, entry)) is not None:
            return here
        if entry.state in (State.FAILED, State.CANCELLED, State.WITHHELD):
            entry = replace(entry, state=State.SUBMITTED)  # so it was, and asking again costs nothing
        return await collect(session, entry, None, wait_seconds, resumed=True)


async def _claimed(session: Session, request_id: str) -> Entry | None:
    """The submission of unknown fate whose job someone asks for by its id, with that id on disk; None if there is none
    that it can be."""
    reply = await once(session, session.provider.status(request_id))
    if isinstance(reply, Lost) or reply.status != OK or str(session.provider.id_of(reply.data)) != request_id:
        return None
    job = session.provider.job(reply.data)
    belongs = await in_thread(lambda stop: open_for(session, job), session.watch)
    if belongs is None:
        return None
    entry = belongs[0]
    async with session.journal.alone(entry.fingerprint, session.watch, f"a run that may have sent {request_id}"):

        def work(stop: threading.Event) -> Entry | None:
            with session.journal.claiming():
                current, rivals = open_for(session, job) or (None, None)
                if current is None or current.fingerprint != entry.fingerprint:
                    return None
                return accepted(session, current, job, rivals)

        found = await to_the_end(work, session.watch)
    if found is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.intent_at))
        session.watch.stage(f"{request_id} belongs to the inputs that were sent on {at} from now on")
    return found


def prepare(session: Session) -> None:
    """Make sure that journal and videos can be written.

    Raises:
        StorageError: they can't.
    """
    session.journal.prepare()
    folder = session.folders.output / session.provider.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_folder(folder)
    except OSError as error:
        failed = error.strerror
    else:
        return _tidy(session)
    raise StorageError(f"{folder} can't be written ({failed}); nothing was sent, make room or choose another folder")


_tidied: dict[Path, float] = {}  # journal to when that was done here


def _tidy(session: Session) -> None:
    """Forget what is old, once a day: a journal of a year takes a second to look through."""
    folder, now = session.journal.folder, session.clock.time()
    if not 0.0 <= now - _tidied.get(folder, -TIDY) < TIDY:
        _tidied[folder] = now
        session.journal.prune(session.folders.output)


def _check_room(session: Session) -> None:
    """Make sure that a video has room before it is paid for. What is paid for is collected with less: most clips
    take a few MiB.

    Raises:
        StorageError: it has none.
    """
    folder = session.folders.output / session.provider.name
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        failed = f"can't be looked at ({error.strerror})"
    else:
        if free >= ROOM:
            return
        failed = f"has {free / 2**20:.0f} MiB left and a clip may need {ROOM / 2**20:.0f}"
    raise StorageError(f"{folder} {failed}; nothing was sent, make room or choose another folder")


async def _submitted(
    session: Session, entry: Entry, images: _Images, wait_seconds: float, graph: str | None
) -> tuple[Entry, Job | None]:
    """The entry with its id on disk: picked up, found again, or sent now."""
    if entry.id:
        session.watch.stage(f"going on with {entry.id} at {session.provider.label}")
        return entry, None
    if entry.state is State.INTENT and (entry.submissions or entry.recovered):  # perhaps taken, its answer was lost
        try:
            async with session.watch.sending(looking=True):
                return await reconcile(session, entry)
        except NotThere:
            pass
    _check_room(session)
    entry = replace(entry, price=await _quote(session, entry))
    session.journal.keep_beside(entry, images.thumbnail, graph and session.secret.cut_from(graph))
    return await submit(session, entry, images.frames, wait_seconds)


async def _quote(session: Session, entry: Entry) -> float | None:
    """What the cloud says it will cost. Asked once: a clip is not held up for it."""
    price = session.provider.questions(entry.parameters).get("price")
    if price is None:
        return None
    reply = await once(session, price.call)
    return None if isinstance(reply, Lost) or reply.status != OK else session.provider.quoted(reply.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Images:
    frames: tuple[Frame, Frame]
    first: str  # hashes of the pixels
    last: str
    thumbnail: bytes  # of the first one; empty if that lies elsewhere


def _images(session: Session, request: Request) -> _Images:
    """Both images fitted and encoded; one that does not fit the cloud's budget is found out here."""
    first, last = (_image(session, request, name) for name in ("first", "last"))
    small = b"" if first[2] is None else thumbnail(first[2])
    return _Images(frames=(first[0], last[0]), first=first[1], last=last[1], thumbnail=small)


def _image(session: Session, request: Request, name: str) -> tuple[Frame, str, np.ndarray | None]:
    """One image as it is sent, what tells it from others, and its pixels; None for one that lies elsewhere."""
    given = getattr(request, name)
    if isinstance(given, str):
        frame = elsewhere(given)
        return frame, frame.sha256, None
    pixels = fitted(given, *request.frame_size, request.fit)
    return encode(pixels, session.provider.image_bytes, f"{name} image"), fingerprint(pixels), pixels


def _wanted(session: Session, request: Request, images: _Images) -> Entry:
    return Entry(
        fingerprint=fingerprint_of(
            request.provider, request.model, request.parameters, images.first, images.last, request.take
        ),
        provider=request.provider,
        model=request.model,
        scope=session.scope,
        parameters=request.parameters,
        first=images.first,
        last=images.last,
        take=request.take,
        seed=_drawn(request.seed),
        intent_at=session.clock.time(),
    )


def _anew(entry: Entry, request: Request) -> Entry:
    """An entry whose job made nothing, ready to be sent again: a random seed is drawn anew."""
    return replace(
        entry, seed=_drawn(request.seed), id="", earlier=(*entry.earlier, entry.id), submissions=0, word="",
        message="", rivals=(), submitted_at=0.0, ended_at=0.0,
    )  # fmt: skip


def _unsure(session: Session, entry: Entry) -> Entry:
    """An entry whose id was guessed and came to nothing: its own job may be another one, which is looked for again."""
    return session.journal.move(
        entry, Event.UNSURE, id="", earlier=(*entry.earlier, entry.id), guessed=False, rivals=(), word="", message="",
        submitted_at=0.0, ended_at=0.0, submissions=max(1, entry.submissions),
    )  # fmt: skip


def _drawn(seed: int) -> int:
    """Drawn here and not in the cloud, so that a run can be shown and repeated."""
    return secrets.randbelow(MAX_SEED + 1) if seed == RANDOM_SEED else seed


def _foreign(session: Session, request_id: str) -> Entry:
    """An entry for a job that was submitted somewhere else."""
    provider = session.provider
    return Entry(
        fingerprint=sha256(f"{provider.name} {request_id}".encode()).hexdigest()[:40],
        provider=provider.name,
        model=provider.model,
        scope=session.scope,
        parameters={},
        first="",
        last="",
        seed=RANDOM_SEED,
        state=State.SUBMITTED,
        id=request_id,
        intent_at=session.clock.time(),
    )
