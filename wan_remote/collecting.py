"""From a job that was paid for to a file: what is here is used, what is in the cloud is waited for and brought."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .clock import moment_text
from .container import ENDINGS, Clip, measure, why_no_video
from .errors import BadResponse, RemoteError, ResultExpired
from .files import move_aside, replace_file
from .job import Job
from .journal import Entry
from .polling import again, another, still_going, wait
from .request import RANDOM_SEED
from .session import Session
from .states import MOVES, Event, State
from .transport import download, refuse_address
from .transport.download import File
from .transport.parts import forget, new_part
from .watch import check, in_thread

CHANGED = "the file was changed since it was brought here; move it away to have it as the cloud made it"
SMALLER, SHORTER = 0.5, 0.5  # share of the pixels and seconds asked for, below which a clip is spoken of


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A clip on disk.

    Attributes:
        path: of the video file, as the cloud made it; nearly always MP4.
        provider, request_id: which job it was.
        seed: the one it was made with, also where -1 was asked for.
        drawn: whether -1 was asked for.
        take: which of several clips of otherwise equal inputs.
        resumed: whether the job was there before this call; nothing was paid then.
        seconds: what making it took, if the cloud says.
        price: US dollars, as quoted before it was sent, if the cloud says.
        flagged: whether the cloud marks it as unsafe content; None if it does not say.
        thumbnail: address of a still of it in the cloud; empty if there is none that anybody may see.
        queued, updated: when the cloud took the job and last changed it, seconds since 1970, if it says.
        note: what is odd about the file; empty if nothing is.
        sha256, size: of the file.
    """

    path: Path
    provider: str
    request_id: str
    seed: int
    drawn: bool
    take: int
    resumed: bool
    seconds: float | None
    price: float | None
    flagged: bool | None = None
    thumbnail: str = ""
    queued: float | None = None
    updated: float | None = None
    note: str
    sha256: str
    size: int


def told(result: Result) -> list[str]:
    """What there is to say of a clip, a line each: its seed, what the cloud says of it, what is odd about it."""
    unsafe = "the cloud marks it as unsafe content" if result.flagged else ""
    still = f"thumbnail {result.thumbnail}" if result.thumbnail else ""
    return [line for line in (_seed(result), _times(result), unsafe, still, result.note) if line]


def _times(result: Result) -> str:
    parts = [f"made in {result.seconds:.1f} s"] if result.seconds else []
    for what, moment in (("queued", result.queued), ("last changed", result.updated)):
        if moment is not None:
            parts.append(f"{what} {moment_text(moment)}")
    return ", ".join(parts)


def _seed(result: Result) -> str:
    """The seed and what it means that it was drawn here; empty where it is not known."""
    if result.seed < 0:
        return ""
    if not result.drawn:
        return f"seed {result.seed}"
    return f"seed {result.seed} (drawn for -1: the same inputs and take give this clip, another take another)"


async def kept(session: Session, entry: Entry) -> Result | None:
    """The clip of a job if it is on disk: noted down, or brought by a run that was killed before it could do that."""
    if not entry.id or (entry.state, Event.STORED) not in MOVES:
        return None
    file = await in_thread(lambda stop: _on_disk(session, entry), session.watch)
    if file is None:
        return None
    changed = bool(entry.sha256) and file.sha256 != entry.sha256
    return await _stored(session, entry, file, resumed=True, changed=changed)


async def collect(session: Session, entry: Entry, job: Job | None, wait_seconds: float, *, resumed: bool) -> Result:
    """Wait for a submitted job and bring its file here. An address that has expired is asked for once more.

    Raises:
        RemoteError: there is no file; says the id, whatever it was.
        Interrupted: stopped; the job goes on.
    """
    try:
        return await _brought(session, entry, job, wait_seconds, resumed)
    except RemoteError as error:
        said = str(error)
        if entry.id in said:
            raise
        more = f" (the job is {entry.id})"
        if not error.advises:
            more = f"; the job {entry.id} is paid for and stays in the cloud: {again(entry)}"
        named = type(error)(f"{said}{more}", advises=True)
    raise named


async def _brought(session: Session, entry: Entry, job: Job | None, wait_seconds: float, resumed: bool) -> Result:
    entry, job = await wait(session, entry, job, wait_seconds)
    for last in (False, True):
        try:
            file = await _download(session, entry, job)
            break
        except ResultExpired as error:
            failed = str(error)
        if last:
            raise ResultExpired(
                f"{failed}; the job {entry.id} is over, and nothing is paid for again: {another(entry)}"
            )
        entry, job = await wait(session, entry, None, wait_seconds)
    return await _stored(session, entry, file, resumed=resumed)


async def _stored(session: Session, entry: Entry, file: File, *, resumed: bool, changed: bool = False) -> Result:
    """What is on disk, in the journal and as a result. Of a file that was ``changed`` the journal keeps what it was."""
    output = session.folders.output
    where, told = str(output.absolute()), entry if changed else file
    if entry.state is not State.FETCHED or (entry.sha256, entry.output) != (told.sha256, where):
        clip = await in_thread(lambda stop: measure(file.path), session.watch)
        entry = session.journal.move(
            entry, Event.STORED, file=str(file.path.relative_to(output)), output=where, sha256=told.sha256,
            size=told.size, ended_at=entry.ended_at or session.clock.time(), note=_odd(session, entry, clip),
        )  # fmt: skip
    note = "; ".join(filter(None, (entry.note, CHANGED if changed else "")))
    said = f"; {note}" if note else ""
    session.watch.stage(f"{session.provider.label}: here it is ({entry.id}){said}", 1.0, 1.0)
    return Result(
        path=file.path,
        provider=entry.provider,
        request_id=entry.id,
        seed=entry.seed,
        drawn=entry.parameters.get("seed") == RANDOM_SEED,
        take=entry.take,
        resumed=resumed,
        seconds=entry.seconds or None,
        price=entry.price,
        flagged=entry.flagged,
        thumbnail=entry.thumbnail,
        queued=entry.queued_at,
        updated=entry.updated_at,
        note=note,
        sha256=file.sha256,
        size=file.size,
    )


async def _download(session: Session, entry: Entry, job: Job) -> File:
    """To a file named after the job."""
    address, allow = job.url, session.allow_loopback
    path = _place(session, entry, ".mp4")
    session.watch.stage("downloading the video", 0.0)

    def work(stop: threading.Event) -> File:
        if why := refuse_address(address, allow_loopback=allow):  # here, since it asks for the host's address
            raise BadResponse(f"{session.provider.label} names a place for the video that can't be used: {why}")

        def on_bytes(done: int, total: int | None) -> None:
            session.watch.stage(f"downloading the video, {done / 2**20:.1f} MiB", done, total)

        return download(address, path, allow_loopback=allow, stop=stop, on_bytes=on_bytes)

    check(session.watch, still_going(session, entry))
    return await in_thread(work, session.watch, still_going(session, entry))


def _on_disk(session: Session, entry: Entry) -> File | None:
    """The file of a job if it is whole: by its hash where that is known, else by its content, such as one that somebody
    edited. One that a run with another output folder brought is copied to that of this run."""
    for path in entry.places(session.folders.output) or [_place(session, entry, ending) for ending in ENDINGS]:
        try:
            data = path.read_bytes()
            digest = sha256(data).hexdigest()
            if digest == entry.sha256 or why_no_video(path) is None:
                return File(path=_brought_over(session, entry, path, data), sha256=digest, size=len(data))
        except OSError:
            continue
    return None


def _brought_over(session: Session, entry: Entry, path: Path, data: bytes) -> Path:
    """A file with this in it, below the output folder of this run: itself, or its copy; raises OSError."""
    if path.is_relative_to(session.folders.output):
        return path
    here = _place(session, entry, path.suffix)
    part = new_part(here)
    try:
        part.write_bytes(data)
        move_aside(here)
        replace_file(part, here)
    finally:
        forget(part)
    return here


def _place(session: Session, entry: Entry, ending: str) -> Path:
    name = entry.id.replace(":", "_")  # on Windows what follows a colon is a hidden stream of the file
    return session.folders.output / session.provider.name / f"{name}{ending}"


def _odd(session: Session, entry: Entry, clip: Clip | None) -> str:
    """How a clip differs from what was asked for, if that is much; empty for jobs of which nothing is known."""
    if clip is None or not entry.parameters:
        return ""
    width, height, seconds = session.provider.request.clip_of(entry.parameters)
    small = clip.width * clip.height < SMALLER * width * height
    if not small and clip.frames > 1 and clip.seconds >= SHORTER * seconds:
        return ""
    return (
        f"the clip is {clip.width}x{clip.height}, {clip.seconds:.1f} s long (frames: {clip.frames}), and "
        f"{width}x{height} in {seconds} s was asked for"
    )
