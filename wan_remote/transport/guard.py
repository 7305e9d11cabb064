"""Where files may be fetched from and put to: public https addresses. Result hosts change, so none is listed."""

from __future__ import annotations

import socket

from requests.utils import get_environ_proxies, select_proxy

from .addresses import LOOPBACK, behind_name, literal_is_public, web_parts


def refuse_address(address: object, *, allow_loopback: bool) -> str | None:
    """Why a file must not be fetched from ``address``, or None.

    Args:
        address: from a cloud's answer or a redirect.
        allow_loopback: whether this machine, named literally, is as good as a public host (tests).
    """
    if not isinstance(address, str) or len(address) > 8192 or any(c <= " " for c in address):
        return "it is not a web address"
    if (parts := web_parts(address)) is None:
        return "it is not a web address"
    host = parts.hostname or ""
    if parts.username or parts.password:
        return "it holds a user name"
    if host in LOOPBACK:
        return None if allow_loopback else "it lies on this machine"
    if parts.scheme != "https":
        return "it is not https"
    if _through_proxy(address):
        return "it is not a public address" if literal_is_public(host) is False else None
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None  # the connection itself will say that the host can't be found
    good = all(behind_name(host, str(row[4][0])) for row in found)
    return None if good else "it is not a public address"


class NotPublic(OSError):
    """The connection ended at an address that is not public."""


def check_peer(host: str, sock: socket.socket, *, allow_loopback: bool) -> None:
    """Look at the address that a connection really ends at: the name may have led elsewhere when it was looked up.

    Raises:
        NotPublic: it is not public; the connection is closed then, and nothing was sent.
    """
    if behind_name(host, str(sock.getpeername()[0])) or (allow_loopback and host in LOOPBACK):
        return
    sock.close()
    raise NotPublic("not a public address")


def _through_proxy(address: str) -> bool:
    return select_proxy(address, get_environ_proxies(address)) is not None
