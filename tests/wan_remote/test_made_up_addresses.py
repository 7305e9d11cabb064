"""Networks that answer every name with an address of their own making (198.18.0.0/15), as some VPN programs do.

The names behind them are public hosts. Literal addresses of that range, and names that resolve to private ones, are no
such hosts.
"""

from __future__ import annotations

import socket

import pytest

from wan_remote.transport import guard, refuse_address


class Peer:
    """A socket that is connected to ``address``."""

    def __init__(self, address: str) -> None:
        self.address, self.closed = address, False

    def getpeername(self) -> tuple[str, int]:
        return self.address, 443

    def close(self) -> None:
        self.closed = True


def resolve(*addresses):
    return lambda host, port, **options: [(0, 0, 0, "", (address, port)) for address in addresses]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setattr(guard, "_through_proxy", lambda address: False)


@pytest.mark.parametrize("found", [("198.18.0.7",), ("198.19.255.254",), ("198.18.0.7", "fc00::7"), ("fc00::7",)])
def test_a_name_with_a_made_up_address_is_public(monkeypatch, found):
    monkeypatch.setattr(socket, "getaddrinfo", resolve(*found))
    assert refuse_address("https://storage.example.com/a.mp4", allow_loopback=False) is None


@pytest.mark.parametrize("host", ["198.18.0.7", "198.19.0.1", "[fc00::7]", "[::ffff:198.18.0.7]"])
def test_a_made_up_address_named_literally_is_refused(host):
    assert refuse_address(f"https://{host}/a.mp4", allow_loopback=False) == "it is not a public address"


@pytest.mark.parametrize(
    "found",
    [("198.18.0.7", "10.0.0.1"), ("198.17.255.255", "127.0.0.1"), ("fd00::7",), ("fc01::1",), ("198.20.0.0", "::1")],
)
def test_private_addresses_beside_it_are_refused(monkeypatch, found):
    monkeypatch.setattr(socket, "getaddrinfo", resolve(*found))
    assert refuse_address("https://storage.example.com/a.mp4", allow_loopback=False) == "it is not a public address"


@pytest.mark.parametrize(
    ("host", "peer", "passes"),
    [("storage.example.com", "198.18.0.7", True), ("storage.example.com", "fc00::7", True),
     ("198.18.0.7", "198.18.0.7", False), ("fc00::7", "fc00::7", False), ("storage.example.com", "10.0.0.1", False)],
)  # fmt: skip
def test_what_was_really_connected_to(host, peer, passes):
    sock = Peer(peer)
    if passes:
        guard.check_peer(host, sock, allow_loopback=False)
        return
    with pytest.raises(guard.NotPublic):
        guard.check_peer(host, sock, allow_loopback=False)
    assert sock.closed
