"""Sessions of the HTTP library whose connections obey a :class:`~.cutoff.Cutoff` and tell it how far they got."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from .cutoff import Cutoff

PIECE = 2**16  # bytes sent at once
UNSENT = 2**19  # bytes that the system may hold back: what it took counts as sent
BROKEN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a handshake that ended says nothing of trust

Check = Callable[[str, socket.socket], None]
"""Looks at where a connection to a host really ended, before anything is sent; raises if that is no good place."""


def open_session(cutoff: Cutoff, silence: float, check: Check | None = None) -> requests.Session:
    """A session for one exchange.

    Args:
        cutoff: its end.
        silence: seconds after which sending is given up if nothing of it moves.
        check: for connections that lead through no proxy.
    """
    session = _Session()
    adapter = _Adapter(cutoff, silence, check)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _Session(requests.Session):
    """Redirects are ours to follow: the library reads all of such an answer, however long, to find the next one."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Bounded:
    """What a connection of the library is besides."""

    cutoff: Cutoff
    silence: float
    check: Check | None
    host: str
    sock: Any

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.cutoff.hold(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)
        if self.check is not None:
            self.check(self.host.strip("[]"), sock)
        return sock

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (ssl.SSLError, ValueError) as error:  # older ones say so of a certificate that is another host's
            connected = isinstance(error, ssl.SSLError) or self.sock is not None
            self.cutoff.untrusted = connected and not isinstance(error, BROKEN)
            raise
        self.sock.settimeout(self.silence)  # the library leaves it at what a connection may take
        self.cutoff.begin()

    def send(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            try:
                super().send(piece)  # type: ignore[misc]
            except TimeoutError:
                self.cutoff.stuck = True
                raise
            self.cutoff.moved(len(piece))

    def getresponse(self, *arguments: Any, **options: Any) -> Any:
        # The library asks for the answer also behind a pipe that broke, as it does where we ended the sending.
        self.cutoff.sent = not self.cutoff.over
        response = super().getresponse(*arguments, **options)  # type: ignore[misc]
        self.cutoff.check()  # a head that ends with the connection is taken for a whole one
        return response


class _Adapter(HTTPAdapter):
    def __init__(self, cutoff: Cutoff, silence: float, check: Check | None) -> None:
        self._facts, self._check = {"cutoff": cutoff, "silence": silence}, check
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._hold(self.poolmanager, self._check)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if not known:
            self._hold(manager, None)
        return manager

    def _hold(self, manager: Any, check: Check | None) -> None:
        pools: Mapping[str, Any] = manager.pool_classes_by_scheme  # those of a SOCKS proxy are its own
        facts = {**self._facts, "check": None if check is None else staticmethod(check)}
        manager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": type("Connection", (_Bounded, pool.ConnectionCls), facts)})
            for scheme, pool in pools.items()
        }
