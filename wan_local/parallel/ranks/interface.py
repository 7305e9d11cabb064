"""Which network card has an address: gloo is told cards by name, and by itself takes the one of the machine's name."""

from __future__ import annotations

import os
import socket
import struct
import sys

LOOPBACK = ("lo", "lo0")
SIOCGIFADDR = 0x8915


def of(address: str) -> str:
    """The name of the card with this IPv4 address; empty where it is not known (Windows, other systems than Linux)."""
    if os.name == "nt":
        return ""
    names = [name for _, name in socket.if_nameindex()]
    if address.startswith("127."):
        return next((name for name in names if name in LOOPBACK), "")
    return next((name for name in names if _address(name) == address), "") if sys.platform == "linux" else ""


def _address(name: str) -> str:
    """The IPv4 address of a card; empty if it has none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def bind_gloo(address: str) -> None:
    """Let gloo of this process listen at ``address`` alone, not at whatever the machine's name stands for.

    That may be every network's card, or 127.0.1.1, at which no other machine finds it. Where the card is not known
    this does nothing.
    """
    if name := of(address):
        os.putenv("GLOO_SOCKET_IFNAME", name)  # read by torch's C++ when a group is made
