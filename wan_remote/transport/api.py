"""Authenticated calls to one cloud. Each ends in an :class:`Answer` or in a :class:`Lost`, never in an exception of the
HTTP library: those hold headers and addresses, and what a lost answer means depends on the call.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from ..secret import Secret
from .bodies import Unreadable
from .bodies import read as read_body
from .connections import open_session
from .cutoff import Cutoff

CONNECT = 10.0  # seconds, to one address
REACH = 30.0  # until a request begins to go out: names, addresses one after the other, proxies, certificates
READ = 20.0  # of silence
IN_ALL = 2.0  # times that for the whole of it, besides what its size takes on a slow line
SLOWEST = 32 * 2**10  # bytes a second of such a line
LONGEST = 600.0  # seconds, whatever its size
OWN_CERTIFICATE = (
    "if a proxy or a virus scanner here opens encrypted connections, name the file with its certificate in the "
    "environment variable REQUESTS_CA_BUNDLE"
)
TOO_SLOW = f"this line is too slow to send it; {8 * SLOWEST // 1000} kbit/s are needed at least"
AGENT = "ComfyUI-WanFLF2V"
APART = 5.0  # seconds that this machine's two ways to tell the time may drift apart


class Failure(Enum):
    """Why there is no answer."""

    UNREACHED = "nothing was sent"
    STOPPED = "nothing was sent before somebody stopped it"
    INSECURE = "the certificate can't be trusted; nothing was sent"
    LOST = "sent in part or whole, and no usable answer came"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request of a cloud's API, without address and key.

    Attributes:
        method, path, query: of HTTP; the path hangs below the cloud's base address.
        body: sent as JSON.
        file: name, bytes and type of a file, sent as the form field ``file``.
        read: seconds of silence after which an answer is given up.
    """

    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: Any = None
    file: tuple[str, bytes, str] | None = None
    read: float = READ


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A call without an answer; ``why`` is one word or two for a message."""

    failure: Failure
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A cloud's answer, read to its end.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        body: the bytes, or None if there were too many.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None

    def json(self) -> Any:
        """The body as JSON, or None if it is none."""
        try:
            return None if self.body is None else json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def date(self) -> float | None:
        """The cloud's own time of the answer, seconds since 1970."""
        return _moment(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, from either form of ``Retry-After``; a date counts from the answer's own date."""
        value = self.headers.get("retry-after", "").strip()
        if value.isdecimal() and value.isascii():
            return float(value[:9])
        until = _moment(value)
        if until is None:
            return None
        return max(0.0, until - (time.time() if self.date is None else self.date))

    @property
    def redirects(self) -> bool:
        return self.status in (301, 302, 303, 307, 308)


class _Bearer(requests.auth.AuthBase):
    """As an object, since a header alone would be replaced by what a ``.netrc`` says about the host."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        return request


class _Nobody(requests.auth.AuthBase):
    """No credentials, and none from a ``.netrc`` either."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


NOBODY = _Nobody()


class Api:
    """One cloud, one key.

    A connection serves one call: on one that was kept open too long a request is lost in a way that looks like
    one that was taken, and for the call that costs money that difference is everything.

    Args:
        base: address that all paths hang below.
        secret: the key.
        headers: sent with every call besides.
    """

    def __init__(self, base: str, secret: Secret, headers: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.secret = secret
        self._date: tuple[float, float, float] | None = None  # the cloud's time, and ours on both clocks
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # the body is read as it comes
            "User-Agent": AGENT,
            **(headers or {}),
        }

    def call(self, call: Call, *, stop: threading.Event | None = None, firm: bool = False) -> Answer | Lost:
        """Ask the cloud; blocks. What it takes at most stands in :func:`exchange`.

        Args:
            call: what to ask.
            stop: set when it is not wanted any more.
            firm: whether a request that has begun to go out is seen through all the same.
        """
        found = exchange(
            call.method, self.base + call.path, auth=_Bearer(self.secret), headers=self._headers, read=call.read,
            stop=stop, firm=firm, params=call.query, json=call.body, files=call.file and {"file": call.file},
        )  # fmt: skip
        if isinstance(found, Answer) and found.date is not None:
            self._date = (found.date, time.monotonic(), time.time())
        return found

    @property
    def time(self) -> float | None:
        """The cloud's own time now, seconds since 1970, if any of its answers had it. None also where this machine
        slept since, during which the one clock stands still, or its other one was corrected, until the next answer.
        """
        if self._date is None:
            return None
        date, monotonic, wall = self._date
        since = time.monotonic() - monotonic
        return date + since if abs(time.time() - wall - since) < APART else None


def put(address: str, data: bytes, headers: Mapping[str, str], stop: threading.Event) -> Answer | Lost:
    """Upload to a signed address, without a key. The address is not checked here."""
    headers = {"User-Agent": AGENT, **headers}
    return exchange("PUT", address, auth=NOBODY, headers=headers, read=3 * READ, stop=stop, data=data)


class _HideQueries(logging.Filter):
    """The HTTP library logs every address when a host logs at its finest; the queries of signed ones are secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                argument.split("?")[0] + "?..." if isinstance(argument, str) and "?" in argument else argument
                for argument in record.args
            )
        return True


HIDE_QUERIES = _HideQueries()


def hide_queries() -> None:
    """Keep signed addresses out of the logs. Adding the same filter again changes nothing."""
    logging.getLogger("urllib3.connectionpool").addFilter(HIDE_QUERIES)


def exchange(
    method: str, address: str, *, auth: requests.auth.AuthBase, headers: Mapping[str, str], read: float,
    stop: threading.Event | None = None, firm: bool = False, **options: Any,
) -> Answer | Lost:  # fmt: skip
    """One request on a connection of its own; redirects are answers.

    It ends, whatever the other side does, :data:`REACH` seconds after it began if nothing could be sent till then, and
    ``2 * read`` seconds after that, with one second more for every 32 KiB of request and answer, ten minutes at most.
    """
    hide_queries()
    cutoff = Cutoff(
        stop or threading.Event(), connect=REACH, limit=IN_ALL * read, slowest=SLOWEST, longest=LONGEST, firm=firm
    )

    def work() -> Answer | Lost:
        try:
            with open_session(cutoff, read) as session:
                response = session.request(
                    method, address, auth=auth, headers=dict(headers), timeout=(CONNECT, read), allow_redirects=False,
                    stream=True, **options,
                )  # fmt: skip
                with response:
                    body = read_body(response, cutoff)
        except Unreadable as error:
            return Lost(failure=Failure.LOST, why=str(error))
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            return _lost(error, cutoff)
        received = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status_code, headers=received, body=body)

    return cutoff.run(work) or _given_up(cutoff)


def _given_up(cutoff: Cutoff) -> Lost:
    """A call that was cut off."""
    if cutoff.stopped:
        return Lost(failure=Failure.LOST if cutoff.begun else Failure.STOPPED, why="stopped")
    if not cutoff.begun:
        return Lost(failure=Failure.UNREACHED, why=f"no connection in {REACH:.0f} s")
    return Lost(failure=Failure.LOST, why="the answer took too long" if cutoff.sent else TOO_SLOW)


def _lost(error: Exception, cutoff: Cutoff) -> Lost:
    """A call that broke: whether anything was sent is what the connection says of itself, and no guess."""
    if cutoff.over:  # it broke because it was to
        return _given_up(cutoff)
    proxy = isinstance(error, requests.exceptions.ProxyError)
    if not cutoff.begun:
        if cutoff.untrusted:
            return Lost(failure=Failure.INSECURE, why="no certificate that is trusted")
        if isinstance(error, requests.exceptions.InvalidSchema):  # the address itself is one of http
            return Lost(failure=Failure.UNREACHED, why="the proxy is a SOCKS one, which needs: pip install pysocks")
        if isinstance(error, requests.exceptions.InvalidURL | UnicodeError):
            return Lost(failure=Failure.UNREACHED, why="the address is no web address")
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return Lost(failure=Failure.UNREACHED, why=f"no connection within {CONNECT:.0f} seconds")
        why = "the proxy can't be reached or refuses" if proxy else "no connection"
        return Lost(failure=Failure.UNREACHED, why=why)
    if cutoff.stuck:
        return Lost(failure=Failure.LOST, why=TOO_SLOW)
    if isinstance(error, requests.exceptions.Timeout):
        return Lost(failure=Failure.LOST, why="no answer in time")
    return Lost(failure=Failure.LOST, why=f"the connection {'through the proxy ' if proxy else ''}broke")


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def host_of(address: str) -> str:
    """The host alone, fit for a message."""
    return urlsplit(address).hostname or "?"
