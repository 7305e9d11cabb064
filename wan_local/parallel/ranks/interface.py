"""Which network card has an address: gloo is told cards by name, and by itself takes the one of the machine's name."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from pathlib import Path

NET = Path("/sys/class/net")
LOOPBACK = {"linux": "lo", "darwin": "lo0"}
SIOCGIFADDR = 0x8915


def of(address: str) -> str:
    """The name of the card with this IPv4 address; empty where it is not known (Windows, other systems than Linux)."""
    if address.startswith("127."):
        return LOOPBACK.get(sys.platform, "")
    return asyncio.run(_look_for(address)) if sys.platform == "linux" and NET.is_dir() else ""


async def _look_for(address: str) -> str:
    """Ask the kernel for the address of one card after the other; it wants to be asked over a socket, any will do."""
    loop = asyncio.get_running_loop()
    asking, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    try:
        number = asking.get_extra_info("socket").fileno()
        return next((card.name for card in sorted(NET.iterdir()) if _address(number, card.name) == address), "")
    finally:
        asking.close()


def _address(number: int, name: str) -> str:
    """The IPv4 address of a card; empty if it has none. ``number``: of an open socket."""
    import fcntl  # not on Windows

    try:
        answer = fcntl.ioctl(number, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
    except OSError:
        return ""
    return ".".join(map(str, answer[20:24]))


def bind_gloo(address: str) -> None:
    """Let gloo of this process listen at ``address`` alone, not at whatever the machine's name stands for.

    That may be every network's card, or 127.0.1.1, at which no other machine finds it. Where the card is not known
    this does nothing.
    """
    if name := of(address):
        os.putenv("GLOO_SOCKET_IFNAME", name)  # read by torch's C++ when a group is made
