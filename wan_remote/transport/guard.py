"""Where files may be fetched from and put to: public https addresses. Result hosts change, so none is listed."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from ..endpoints import LOOPBACK

# Some VPN programs answer every look-up with an address of their own from these and carry what is sent there to the
# host of that name (sing-box and Clash call it fake IP; the ranges are their defaults). So it counts as public where a
# name led there. A name that somebody else pointed there gets no further: no machine there has a certificate for it.
MADE_UP = (ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fc00::/18"))

# Hold an IPv4 address in their last bytes: NAT64, the compatible and the translated form.
LAST_BYTES = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))

# Local use (NAT64 of a network of its own, RFC 8215; site-local; SRv6) and documentation, which not every Python knows.
LOCAL = tuple(ipaddress.ip_network(net) for net in ("64:ff9b:1::/48", "fec0::/10", "5f00::/16", "3fff::/20"))


def refuse_address(address: object, *, allow_loopback: bool) -> str | None:
    """Why a file must not be fetched from ``address``, or None.

    Args:
        address: from a cloud's answer or a redirect.
        allow_loopback: whether this machine, named literally, is as good as a public host (tests).
    """
    if not isinstance(address, str) or len(address) > 8192 or any(c <= " " for c in address):
        return "it is not a web address"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is not a web address"
    if parts.scheme not in ("http", "https") or not host:
        return "it is not a web address"
    if parts.username or parts.password:
        return "it holds a user name"
    if host in LOOPBACK:
        return None if allow_loopback else "it lies on this machine"
    if parts.scheme != "https":
        return "it is not https"
    if _through_proxy(address):
        return None if _literal(host) is None or _public(host) else "it is not a public address"
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None  # the connection itself will say that the host can't be found
    good = all(_behind_name(host, str(row[4][0])) for row in found)
    return None if good else "it is not a public address"


class NotPublic(OSError):
    """The connection ended at an address that is not public."""


def check_peer(host: str, sock: socket.socket, *, allow_loopback: bool) -> None:
    """Look at the address that a connection really ends at: the name may have led elsewhere when it was looked up.

    Raises:
        NotPublic: it is not public; the connection is closed then, and nothing was sent.
    """
    if _behind_name(host, str(sock.getpeername()[0])) or (allow_loopback and host in LOOPBACK):
        return
    sock.close()
    raise NotPublic("not a public address")


def _through_proxy(address: str) -> bool:
    return select_proxy(address, get_environ_proxies(address)) is not None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return None


def _behind_name(host: str, address: str) -> bool:
    """Whether ``address`` is a good one for ``host``, which resolved to it or is it."""
    found = _literal(address)
    return _public(address) or (found is not None and _literal(host) is None and any(found in net for net in MADE_UP))


def _public(address: str) -> bool:
    found = _literal(address)
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in net for net in LOCAL):
            return False
        found = _embedded(found) or found
    return found is not None and found.is_global and not found.is_multicast


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address at which what is sent to an IPv6 one ends: 6to4 (RFC 3056), NAT64 (RFC 6052), mapped and
    compatible (RFC 4291, section 2.5.5), or translated (RFC 2765, section 2.1)."""
    if any(address in net for net in LAST_BYTES):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
