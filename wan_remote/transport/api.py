"""Authenticated calls to one cloud. Each ends in an :class:`Answer` or in a :class:`Lost`, never in an exception of the
HTTP library: those hold headers and addresses, and what a lost answer means depends on the call.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from ..keys import Secret

CONNECT = 10.0  # seconds
READ = 20.0  # between two pieces of an answer, and for the whole of it twice that
MOST_BYTES = 32 * 2**20  # of an answer: a record may repeat the pictures it was made from
AGENT = "ComfyUI-WanFLF2V"


class Failure(Enum):
    """Why there is no answer."""

    UNREACHED = "nothing was sent"
    INSECURE = "the certificate can't be trusted; nothing was sent"
    LOST = "sent in part or whole, and no usable answer came"


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
        told = self.headers.get("retry-after", "").strip()
        if told.isdecimal() and told.isascii():
            return float(told[:9])
        until = _moment(told)
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

    A connection serves one call: on one that was kept open too long a request is lost in a way that can't be told from
    one that was taken, and for the call that costs money that difference is everything.

    Args:
        base: address that all paths hang below.
        secret: the key.
        headers: sent with every call besides.
    """

    def __init__(self, base: str, secret: Secret, headers: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.secret = secret
        self._told: tuple[float, float] | None = None  # the cloud's time, and ours on a clock that nobody corrects
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # the body is read as it comes
            "User-Agent": AGENT,
            **(headers or {}),
        }

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        file: tuple[str, bytes, str] | None = None,
        read: float = READ,
    ) -> Answer | Lost:
        """Ask the cloud; blocks, for ``read`` seconds twice at most once connected.

        Args:
            method: of HTTP.
            path: below the base, beginning with a slash.
            query: of the address.
            body: sent as JSON.
            file: name, bytes and type of a file, sent as the form field ``file``.
            read: seconds of silence after which an answer is given up.
        """
        found = exchange(
            method, self.base + path, auth=_Bearer(self.secret), headers=self._headers, read=read,
            params=query, json=body, files=None if file is None else {"file": file},
        )  # fmt: skip
        if isinstance(found, Answer) and found.date is not None:
            self._told = (found.date, time.monotonic())
        return found

    @property
    def time(self) -> float | None:
        """The cloud's own time now, seconds since 1970, if any of its answers has told it."""
        told = self._told
        return None if told is None else told[0] + time.monotonic() - told[1]


def put(address: str, data: bytes, headers: Mapping[str, str], read: float = READ * 3) -> Answer | Lost:
    """Upload to a signed address, without a key. The address is not checked here."""
    return exchange("PUT", address, auth=NOBODY, headers={"User-Agent": AGENT, **headers}, read=read, data=data)


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
    method: str, address: str, *, auth: requests.auth.AuthBase, headers: Mapping[str, str], read: float, **options: Any
) -> Answer | Lost:
    """One request on a connection of its own; redirects are answers."""
    hide_queries()
    began = time.monotonic()
    try:
        with requests.Session() as session:
            response = session.request(
                method, address, auth=auth, headers=dict(headers), timeout=(CONNECT, read), allow_redirects=False,
                stream=True, **options,
            )  # fmt: skip
            with response:
                body = _read(response, began + 2 * read)
    except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
        return _classify(error)
    if isinstance(body, Lost):
        return body
    return Answer(status=response.status_code, headers={k.lower(): v for k, v in response.headers.items()}, body=body)


def _read(response: requests.Response, deadline: float) -> bytes | None | Lost:
    """The body; None if it is too large. A body that drips for ever is given up, whatever the pauses in it."""
    parts, size = [], 0
    for part in pieces(response):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            return None
        if time.monotonic() > deadline:
            return Lost(failure=Failure.LOST, why="the answer took too long")
    return b"".join(parts)


def pieces(response: requests.Response, most: int = 2**16) -> Iterator[bytes]:
    """The body as it comes in. The HTTP library's own pieces wait until they are full, however slowly they fill."""
    raw = response.raw
    read: Callable[[int], bytes] = getattr(raw, "read1", None) or raw._fp.read1
    while piece := read(most):
        yield piece


def _classify(error: BaseException) -> Lost:
    if isinstance(error, requests.exceptions.ProxyError):
        if _never_connected(error) or "tunnel connection failed" in str(error).lower():
            return Lost(failure=Failure.UNREACHED, why="the proxy can't be reached or refuses")
        # The library says "unable to connect to proxy" of whatever breaks on a way that leads through one, also of an
        # answer that was lost after everything had been sent.
        return Lost(failure=Failure.LOST, why="the connection through the proxy broke")
    if isinstance(error, requests.exceptions.SSLError):
        if any(word in str(error).lower() for word in ("certificate", "hostname", "handshake", "wrong_version")):
            return Lost(failure=Failure.INSECURE, why="its certificate can't be trusted")
        return Lost(failure=Failure.LOST, why="the connection broke")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Lost(failure=Failure.UNREACHED, why="no connection within 10 seconds")
    if isinstance(error, requests.exceptions.ConnectionError) and _never_connected(error):
        return Lost(failure=Failure.UNREACHED, why="no connection")
    if isinstance(error, requests.exceptions.Timeout):
        return Lost(failure=Failure.LOST, why="no answer in time")
    if isinstance(error, requests.exceptions.InvalidSchema) and "socks" in str(error).lower():
        return Lost(failure=Failure.UNREACHED, why="the proxy is a SOCKS one, which needs: pip install pysocks")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | UnicodeError):
        return Lost(failure=Failure.UNREACHED, why="the address is no web address")
    return Lost(failure=Failure.LOST, why="the connection broke")


def _never_connected(error: BaseException) -> bool:
    """Whether the library failed to connect at all, told from the reason it wraps."""
    seen: BaseException | object | None = error
    for _ in range(6):
        if type(seen).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "gaierror"):
            return True
        arguments = getattr(seen, "args", ())
        wrapped = getattr(seen, "reason", None) or getattr(seen, "original_error", None)
        seen = wrapped or (arguments[0] if arguments else None)
    return False


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def host_of(address: str) -> str:
    """The host alone, fit for a message."""
    return urlsplit(address).hostname or "?"
