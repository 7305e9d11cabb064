"""Which addresses are public. Asked by whoever fetches, puts or hands on what lies at an address from outside."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Some VPN programs answer every look-up with an address of their own from these and carry what is sent there to the
# host of that name (sing-box and Clash call it fake IP; the ranges are their defaults). So it counts as public where a
# name led there. A name that somebody else pointed there gets no further: no machine there has a certificate for it.
MADE_UP = (ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fc00::/18"))

# Hold an IPv4 address in their last bytes: NAT64, the compatible and the translated form.
LAST_BYTES = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))

# Local use (NAT64 of a network of its own, RFC 8215; site-local; SRv6) and documentation, which not every Python knows.
LOCAL = tuple(ipaddress.ip_network(net) for net in ("64:ff9b:1::/48", "fec0::/10", "5f00::/16", "3fff::/20"))


def web_parts(address: str) -> SplitResult | None:
    """An address in its parts; None for what is no http or https, or has no host or no port that can be one."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # looked at only here
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def is_loopback(address: str) -> bool:
    """Whether an address names this very machine, literally: a name that only resolves to it does not count."""
    return urlsplit(address).hostname in LOOPBACK


def literal_is_public(host: str) -> bool | None:
    """Whether a host that is written as a number is public; None for a name, which says nothing yet."""
    return None if _literal(host) is None else _public(host)


def behind_name(host: str, address: str) -> bool:
    """Whether ``address`` is a good one for ``host``, which resolved to it or is it."""
    found = _literal(address)
    return _public(address) or (found is not None and _literal(host) is None and any(found in net for net in MADE_UP))


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is; also in the old notations of IPv4 that machines still take, like ``127.1``."""
    host = host.split("%")[0].removesuffix(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


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
