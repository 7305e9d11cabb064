"""A video from a cloud's file host: no key, bounded, resumed where it broke, checked before it gets its name."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError

from ..container import ending, why_no_video
from ..errors import BadDownload, Interrupted, RemoteError, ResultExpired, StorageError, Unreachable
from ..files import move_aside, replace_file
from .api import AGENT, CONNECT, NOBODY, OWN_CERTIFICATE, REACH, hide_queries, host_of
from .bodies import TooMuch, Unreadable, bounded, encoding, unpacked
from .connections import open_session
from .cutoff import CutOff, Cutoff
from .guard import NotPublic, check_peer, refuse_address
from .parts import clear_away, forget, new_part

MOST_BYTES = 2**30
ATTEMPTS = 5
HOPS = 3
READ = 15.0  # seconds without a byte
SLOWEST, PATIENCE = 4096, 60.0  # bytes a second on average, after so many seconds
PIECE = 2**16
PAUSE = 0.5  # seconds before the second attempt, doubled for each later one
GONE = (401, 403, 404, 410)
UNREAD = ".unread"  # ending of what came and is no video
BROKEN = (requests.RequestException, HTTPError, HTTPException, ConnectionError, TimeoutError, UnicodeError)
MOVED = (301, 302, 303, 307, 308)

OnBytes = Callable[[int, "int | None"], None]
"""Bytes so far and in all, if that is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A video on disk, whole and checked."""

    path: Path
    sha256: str
    size: int


def download(
    address: str,
    path: Path,
    *,
    allow_loopback: bool,
    stop: threading.Event,
    on_bytes: OnBytes = lambda done, total: None,
) -> File:
    """Fetch ``address`` to ``path``; blocks. The file has its name only once it is whole, with the ending that its
    content has. What can't be read as a video is kept beside it after the last attempt: it was paid for.

    Raises:
        BadDownload: a place nothing is fetched from, or something else than a video.
        ResultExpired: the host no longer gives it; a fresh address may.
        Unreachable: the host can't be reached.
        StorageError: the disk is full or can't be written.
        Interrupted: ``stop`` was set.
    """
    hide_queries()
    part = new_part(path)
    failed: RemoteError | None = None
    state = _State()
    try:
        clear_away(path)
        for attempt in range(ATTEMPTS):
            if attempt and stop.wait(PAUSE * 2 ** (attempt - 1)):
                raise Interrupted("stopped")
            failed = _attempt(address, part, state, allow_loopback, stop, on_bytes)
            if failed is None:
                _go_on(stop)
                failed = _verify(part, path, state, last=attempt + 1 == ATTEMPTS)
            if failed is None:
                return _finish(part, path, stop)
            if not isinstance(failed, _TryAgain):
                raise failed
    except OSError as error:
        trouble = f"{path.parent} can't take the video ({error.strerror or 'input/output error'})"
    else:
        assert isinstance(failed, _TryAgain)
        raise failed.final
    finally:
        forget(part)
    said = f"{trouble}; make room and queue the same inputs again, the clip is paid and kept in the cloud"
    raise StorageError(said, advises=True)


class _TryAgain(RemoteError):
    """Worth another attempt; ``final`` is what to say after the last one."""

    def __init__(self, final: RemoteError) -> None:
        self.final = final
        super().__init__(str(final))


@dataclass(slots=True)
class _State:
    """What is known of the file across attempts."""

    tag: str | None = None  # strong ETag: without one a broken download starts again
    size: int | None = None  # of the whole file
    md5: str | None = None


def _attempt(
    address: str, part: Path, state: _State, allow_loopback: bool, stop: threading.Event, on_bytes: OnBytes
) -> RemoteError | None:
    """Fetch what is missing; None if the whole body came."""
    have = part.stat().st_size if state.tag and part.exists() else 0
    headers = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    if have and state.tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": state.tag}
    cutoff = Cutoff(stop, connect=REACH, limit=PATIENCE, slowest=SLOWEST)
    astray: list[str] = []

    def check(host: str, sock: socket.socket) -> None:
        try:
            check_peer(host, sock, allow_loopback=allow_loopback)
        except NotPublic:
            astray.append(host)
            raise

    with cutoff.watched():
        try:
            with open_session(cutoff, READ, check) as session:
                found = _follow(session, address, headers, allow_loopback)
                if isinstance(found, RemoteError):
                    return found
                with found:
                    return _store(found, part, have, state, cutoff, on_bytes)
        except (*BROKEN, CutOff, Unreadable) as error:
            _go_on(stop)
            return _broken(error, address, cutoff, bool(astray))


def _broken(error: Exception, address: str, cutoff: Cutoff, astray: bool) -> RemoteError:
    """What to say of an attempt that broke."""
    host = host_of(address)
    if astray:
        return BadDownload("the video lies at an address that is not public; nothing was fetched")
    if cutoff.untrusted:
        return BadDownload(
            f"{host} showed no certificate that is trusted; nothing was fetched. Check the clock of this machine, and "
            f"{OWN_CERTIFICATE}; then queue the same inputs again, the clip is kept in the cloud",
            advises=True,
        )
    if isinstance(error, requests.exceptions.InvalidSchema):  # the address itself has passed the guard
        return Unreachable(
            "the proxy of this machine is a SOCKS one, which needs PySocks (pip install pysocks); then "
            "queue the same inputs again, the clip is kept in the cloud",
            advises=True,
        )
    if isinstance(error, Unreadable):
        said = f"{host} does not give the video: {error}; queue the same inputs again later"
        return _TryAgain(BadDownload(said, advises=True))
    if cutoff.over and cutoff.begun:
        said = f"{host} sends too slowly (under {SLOWEST:,} bytes a second); try later"
        return _TryAgain(Unreachable(said, advises=True))
    said = f"{host} broke off the download {ATTEMPTS} times; queue the same inputs again to go on"
    return _TryAgain(Unreachable(said, advises=True))


def _follow(
    session: requests.Session, address: str, headers: dict[str, str], allow_loopback: bool
) -> requests.Response | RemoteError:
    """The answer behind at most three redirects, each of them checked."""
    for _ in range(HOPS + 1):
        if why := refuse_address(address, allow_loopback=allow_loopback):
            return BadDownload(f"the video is not fetched from where the cloud says it is: {why}")
        session.cookies.clear()
        response = session.get(
            address, headers=headers, auth=NOBODY, timeout=(CONNECT, READ), allow_redirects=False, stream=True
        )
        if response.status_code not in MOVED:
            return response
        place = response.headers.get("Location", "")
        response.close()
        try:
            address = urljoin(address, place)
        except ValueError:
            return BadDownload(f"{host_of(address)} sends the download to what is no address; nothing was fetched")
    return BadDownload(f"{host_of(address)} sends the download in a circle; nothing was fetched")


def _store(
    response: requests.Response, part: Path, have: int, state: _State, cutoff: Cutoff, on_bytes: OnBytes
) -> RemoteError | None:
    status, host = response.status_code, host_of(response.url)
    if status in GONE:
        return ResultExpired(f"{host} no longer gives the video ({status})")
    if status == 416:
        part.unlink(missing_ok=True)
        state.tag = None
        return _TryAgain(BadDownload(f"{host} does not give the video (416)"))
    if status not in (200, 206):
        said = f"{host} does not give the video ({status}); queue the same inputs again later"
        return _TryAgain(BadDownload(said, advises=True))
    resumed = status == 206 and _goes_on(response, have, state)
    if status == 206 and not resumed:
        state.tag = None
        return _TryAgain(BadDownload(f"{host} gives another part of the video than was asked for"))
    at = have if resumed else 0
    _learn(response, state, at)
    if state.size is not None and state.size > MOST_BYTES:
        return BadDownload(f"{host} announces {state.size:,} bytes, more than a clip has; nothing was fetched")
    return _copy(response, part, at, state, cutoff, on_bytes)


def _goes_on(response: requests.Response, have: int, state: _State) -> bool:
    """Whether a part is the missing one of the very file that was begun. Some hosts ignore If-Range."""
    start, _, whole = response.headers.get("Content-Range", "").partition("/")
    same = response.headers.get("ETag") == state.tag and (state.size is None or whole in ("", "*", str(state.size)))
    return have > 0 and same and not encoding(response) and start.startswith(f"bytes {have}-")


def _learn(response: requests.Response, state: _State, at: int) -> None:
    if encoding(response):  # all of it is of the packed bytes
        state.size = state.tag = state.md5 = None
        return
    length = response.headers.get("Content-Length", "")
    state.size = at + int(length) if length.isdigit() else None
    tag = response.headers.get("ETag", "")
    state.tag = tag if tag.startswith('"') else None
    hashes = dict(
        item.strip().split("=", 1) for item in response.headers.get("x-goog-hash", "").split(",") if "=" in item
    )
    state.md5 = hashes.get("md5")


def _copy(
    response: requests.Response, part: Path, at: int, state: _State, cutoff: Cutoff, on_bytes: OnBytes
) -> RemoteError | None:
    got, host = 0, host_of(response.url)
    response.raw.enforce_content_length = False  # it would throw away what came before the cut; counted below
    with part.open("ab" if at else "wb") as file:
        try:
            for piece in bounded(unpacked(response, cutoff, PIECE), MOST_BYTES - at):
                file.write(piece)
                got += len(piece)
                on_bytes(at + got, state.size)
        except TooMuch:
            return BadDownload(f"{host} sends more than a clip has; the download was given up")
        file.flush()
        os.fsync(file.fileno())
    if state.size is not None and at + got != state.size:  # older HTTP libraries do not notice
        said = f"{host} cuts the video short ({at + got:,} of {state.size:,} bytes); try later"
        return _TryAgain(BadDownload(said, advises=True))
    return None


def _verify(part: Path, path: Path, state: _State, *, last: bool) -> RemoteError | None:
    """What only the whole file shows; a file that fails is thrown away, so that the next attempt starts anew."""
    why, broken = why_no_video(part), False
    if state.md5 is not None:
        digest = base64.b64encode(hashlib.md5(part.read_bytes(), usedforsecurity=False).digest()).decode()
        broken = digest != state.md5
        why = why or ("its bytes are not those that the host announced" if broken else None)
    if why is None:
        return None
    if last and not broken and not _is_page(part):
        place = path.with_suffix(UNREAD)
        replace_file(part, place)
        return BadDownload(f"the cloud's file is no complete video: {why}; it is kept as {place}, look at it there")
    part.unlink(missing_ok=True)
    state.tag = None
    said = f"what was downloaded is no complete video: {why}; queue the same inputs again later"
    return _TryAgain(BadDownload(said, advises=True))


def _is_page(part: Path) -> bool:
    """Whether a file is text, as the pages are that hosts give in place of a file."""
    with part.open("rb") as file:
        head = file.read(512)
    try:
        return all(character.isprintable() or character.isspace() for character in head.decode())
    except UnicodeDecodeError:
        return False


def _finish(part: Path, path: Path, stop: threading.Event) -> File:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    size, path = part.stat().st_size, path.with_suffix(ending(part))
    _go_on(stop)
    if not _holds(path, size, digest.digest()):
        move_aside(path)
    replace_file(part, path)
    return File(path=path, sha256=digest.hexdigest(), size=size)


def _holds(path: Path, size: int, digest: bytes) -> bool:
    """Whether this very file is there already: two runs of the same job may bring it at once."""
    try:
        return path.stat().st_size == size and hashlib.sha256(path.read_bytes()).digest() == digest
    except OSError:
        return False


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Interrupted("stopped")
