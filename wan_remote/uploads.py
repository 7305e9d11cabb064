"""Images to where a cloud can fetch them; the same image only once a day."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import BadResponse, Forbidden, ModelUnavailable, NoUploads, Rejected
from .files import write_private
from .images import Frame
from .providers.reading import a_dict, a_text
from .retry import ATTEMPTS, PASSING, ask, no_answer, pause
from .session import Session
from .transport import Answer, Lost, refuse_address
from .transport.api import put
from .watch import SLICE, check, in_thread, sleep

FRESH = 24 * 3600.0  # seconds that an upload is taken to last; the clouds promise seven days


async def upload(session: Session, frame: Frame, name: str) -> str:
    """The public address of an image.

    Raises:
        NoUploads: the cloud takes no images this way.
        RemoteError: the cloud refuses it, can't be reached, or answers with an address nothing should be sent to.
        Interrupted: stopped.
    """
    if frame.address:
        return frame.address
    async with _alone(session, frame):
        cache = _Cache(session)
        if known := cache.get(frame.sha256):
            return known
        session.watch.stage(f"uploading the {name} image to {session.provider.label}")
        address = await _sent(session, frame, name)
        cache.put(frame.sha256, address)
        return address


def forget(session: Session, frames: Iterable[Frame], *, before: float) -> bool:
    """Drop what is known of uploads of these images from before a moment; whether there was any."""
    return _Cache(session).drop({frame.sha256 for frame in frames}, before)


_under_way: set[tuple[object, ...]] = set()
_looking = threading.Lock()


@contextlib.asynccontextmanager
async def _alone(session: Session, frame: Frame) -> AsyncIterator[None]:
    """Hold the upload of an image: others who have the same one wait, and find it uploaded then.

    Not an asyncio lock: prompts of one host may each have an event loop of their own.
    """
    name = (session.folders.state, session.provider.name, session.secret.scope, frame.sha256)
    while not _taken(name):
        check(session.watch)
        await asyncio.sleep(SLICE)
    try:
        yield
    finally:
        _under_way.discard(name)


def _taken(name: tuple[object, ...]) -> bool:
    with _looking:
        free = name not in _under_way
        _under_way.add(name)
        return free


async def _sent(session: Session, frame: Frame, name: str) -> str:
    """To the place that the cloud names, or where none is to be had in a form; the address it can be fetched from."""
    try:
        return await _signed(session, frame, name)
    except NoUploads:
        form = session.provider.upload_form(name, frame)
        if form is None:
            raise
    return await _public(session, session.provider.place((await ask(session, form)).data).address)


async def _signed(session: Session, frame: Frame, name: str) -> str:
    """Ask where to, put it there, and give the address under which it can be fetched. A refused one is renewed."""
    label = session.provider.label
    for _ in range(2):
        try:
            reply = await ask(session, session.provider.upload_ticket(name, frame))
        except ModelUnavailable:  # this cloud has no such endpoint; that says nothing about the model
            raise NoUploads(f"{label} takes no uploads of images (404); use other or smaller images") from None
        except (Forbidden, Rejected) as error:
            raise NoUploads(f"{label} names no place for an image: {error}") from None
        place = session.provider.place(reply.data)
        if not place.url or not place.address:  # an answer of another form
            raise NoUploads(f"{label} names no place for an image; try again later")
        address, target = await _public(session, place.address), await _public(session, place.url)
        if await _put(session, target, frame, place.headers or {"Content-Type": frame.mime}):
            return address
    raise NoUploads(f"{label} does not take an image where it says it should go; try again later")


async def _put(session: Session, address: str, frame: Frame, headers: Mapping[str, str]) -> bool:
    """Whether the image was taken; False for a refusal that a new ticket may heal."""

    def work(stop: threading.Event) -> Answer | Lost:
        return put(address, frame.data, headers, stop)

    for attempt in range(ATTEMPTS):
        if attempt:
            await sleep(pause(attempt - 1), session.watch, session.clock)
        found = await in_thread(work, session.watch)
        if isinstance(found, Answer) and found.status in (200, 201, 204):
            return True
        if isinstance(found, Answer) and found.status not in PASSING:
            return False
    if isinstance(found, Lost):
        raise no_answer(session, found)
    return False


async def _public(session: Session, address: object) -> str:
    """The address if an image may lie there. In a thread: names are looked up, and a resolver may take its time."""
    allow = session.allow_loopback
    why = await in_thread(lambda stop: refuse_address(address, allow_loopback=allow), session.watch)
    if why is not None:
        raise BadResponse(f"{session.provider.label} names a place for an image that can't be used: {why}")
    return str(address)


class _Cache:
    """Hash of an image to its address, a day long. Addresses with a query may be signed and are not kept."""

    def __init__(self, session: Session) -> None:
        self._path: Path = session.folders.state / "uploads.json"
        self._scope = f"{session.provider.name} {session.secret.scope} "
        self._now = session.clock.time()

    def get(self, digest: str) -> str | None:
        row = a_dict(self._read().get(self._scope + digest))
        at = row.get("at")
        fresh = isinstance(at, int | float) and 0 <= self._now - at < FRESH
        return a_text(row.get("url")) or None if fresh else None

    def put(self, digest: str, address: str) -> None:
        if "?" not in address:
            self._write(self._fresh() | {self._scope + digest: {"url": address, "at": self._now}})

    def drop(self, digests: set[str], before: float) -> bool:
        rows = self._fresh()
        old = {key for key in (self._scope + digest for digest in digests) if key in rows and rows[key]["at"] < before}
        if old:
            self._write({key: row for key, row in rows.items() if key not in old})
        return bool(old)

    def _fresh(self) -> dict[str, Any]:
        return {
            key: row
            for key, row in self._read().items()
            if isinstance(a_dict(row).get("at"), int | float) and self._now - row["at"] < FRESH
        }

    def _write(self, rows: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # an upload more is no harm
            write_private(self._path, json.dumps(rows).encode(), flush=False)

    def _read(self) -> dict[str, Any]:
        try:
            return a_dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, RecursionError):
            return {}
