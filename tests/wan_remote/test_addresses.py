"""Which addresses something may be fetched from and put to."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from wan_remote.transport import addresses, guard, refuse_address


def resolve(*addresses: str) -> Callable[..., Any]:
    return lambda host, port, **options: [(0, 0, 0, "", (address, port)) for address in addresses]


def test_what_counts_as_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_through_proxy", lambda address: False)
    monkeypatch.setattr(guard.socket, "getaddrinfo", resolve("8.8.8.8"))

    def refused(address: object) -> str | None:
        return guard.refuse_address(address, allow_loopback=False)

    stem = "https://example.com/"
    assert refused(stem + "x" * (8192 - len(stem))) is None
    assert refused(stem + "x" * (8193 - len(stem))) == "it is not a web address"
    for bad in (None, b"https://a.b/", "https://a.b/ c", "https://a.b/\tc", "https://a.b/\x00", "ftp://a.b/", "//a.b/c",
                "https://", "https:///x", "https://[::1", "https://a.b:99999/", "mailto:a@b"):  # fmt: skip
        assert refused(bad) == "it is not a web address", bad
    assert refused("https://a.b/!") is None
    assert refused("https://u@a.b/") == "it holds a user name"
    assert refused("https://:p@a.b/") == "it holds a user name"
    assert refused("http://a.b/") == "it is not https"


def test_names_are_resolved_at_the_port_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_through_proxy", lambda address: False)
    asked = []

    def lookup(host: str, port: int, **options: Any) -> Any:
        asked.append((host, port, options))
        return resolve("8.8.8.8", "10.0.0.1" if host == "half" else "8.8.4.4")(host, port)

    monkeypatch.setattr(guard.socket, "getaddrinfo", lookup)
    assert guard.refuse_address("https://a.b/x", allow_loopback=False) is None
    assert guard.refuse_address("https://a.b:8443/x", allow_loopback=False) is None
    assert [(host, port) for host, port, _ in asked] == [("a.b", 443), ("a.b", 8443)]
    assert asked[0][2] == {"type": socket.SOCK_STREAM}
    assert guard.refuse_address("https://half/x", allow_loopback=False) == "it is not a public address"
    for error in (socket.gaierror(), UnicodeError()):

        def fail(*arguments: Any, error: Exception = error, **options: Any) -> None:
            raise error

        monkeypatch.setattr(guard.socket, "getaddrinfo", fail)
        assert guard.refuse_address("https://a.b/x", allow_loopback=False) is None


def test_through_a_proxy_only_literal_addresses_can_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_through_proxy", lambda address: True)
    monkeypatch.setattr(guard.socket, "getaddrinfo", lambda *a, **k: pytest.fail("the proxy resolves names"))
    assert guard.refuse_address("https://a.b/x", allow_loopback=False) is None
    assert guard.refuse_address("https://8.8.8.8/x", allow_loopback=False) is None
    assert guard.refuse_address("https://10.0.0.1/x", allow_loopback=False) == "it is not a public address"
    assert guard.refuse_address("https://127.1/x", allow_loopback=False) == "it is not a public address"
    assert guard.refuse_address("https://[fe80::1%25eth0]/x", allow_loopback=False) == "it is not a public address"


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("10.0.0.1", False), ("224.0.0.1", False), ("2001:4860:4860::8888", True), ("::1", False),
     ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True), ("fe80::1%eth0", False), ("2001:4860:4860::8888%1", True),
     ("name", False), ("", False), ("ff0e::1", False), ("64:ff9b::10.0.0.1", False), ("64:ff9b::8.8.8.8", True),
     ("64:ff9b::169.254.169.254", False), ("2002:a00:1::1", False), ("2002:808:808::1", True), ("::10.0.0.1", False),
     ("::ffff:0:10.0.0.1", False), ("::ffff:0:8.8.8.8", True), ("64:ff9b:1::a00:1", False), ("fec0::1", False),
     ("64:ff9b:1:808:8:800:a00:1", False), ("5f00::1", False), ("3fff::1", False), ("64:ff9b:2::1", True),
     ("127.1", False), ("0x7f.0.0.1", False), ("2130706433", False), ("134744072", True), ("10.0.0.1.", False)],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    name = address in ("name", "")
    assert addresses.literal_is_public(address) is (None if name else public)
    assert addresses.behind_name("host.example", address) is public


class Peer:
    def __init__(self, address: str) -> None:
        self.address, self.closed = address, False

    def getpeername(self) -> tuple[str, int, int]:
        return self.address, 7, 8

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("peer", "host", "allowed", "passes"),
    [("8.8.8.8", "a.b", False, True), ("8.8.8.8", "a.b", True, True), ("10.0.0.1", "a.b", True, False),
     ("127.0.0.1", "127.0.0.1", True, True), ("127.0.0.1", "127.0.0.1", False, False),
     ("127.0.0.1", "a.b", True, False), ("::1", "::1", True, True)],
)  # fmt: skip
def test_the_address_that_was_really_connected_to(peer: str, host: str, allowed: bool, passes: bool) -> None:
    sock: Any = Peer(peer)
    if passes:
        guard.check_peer(host, sock, allow_loopback=allowed)
        assert not sock.closed
        return
    with pytest.raises(guard.NotPublic):
        guard.check_peer(host, sock, allow_loopback=allowed)
    assert sock.closed


PRIVATE = [
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
    "[::1]", "[fc00::1]", "[fe80::1]", "[::ffff:10.0.0.1]", "[::ffff:127.0.0.1]", "[::]", "127.0.0.2", "198.18.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused(host, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert refuse_address(f"https://{host}/x", allow_loopback=False)


@pytest.mark.parametrize(
    "address",
    ["", None, 7, "x", "ftp://1.1.1.1/x", "http://1.1.1.1/x", "https:///x", "https://u@1.1.1.1/", "https://1.1.1.1:bad/",
     "https://1.1.1.1/ x", "https://" + "a" * 9000],
)  # fmt: skip
def test_what_is_no_public_https_address_is_refused(address):
    assert refuse_address(address, allow_loopback=False)


def test_this_machine_counts_only_by_its_name_and_only_for_tests(monkeypatch):
    for host in ("127.0.0.1:80", "localhost", "[::1]:8080"):
        assert refuse_address(f"http://{host}/x", allow_loopback=True) is None
        assert refuse_address(f"http://{host}/x", allow_loopback=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [(2, 1, 6, "", ("127.0.0.1", 443))])
    assert refuse_address("https://sly.example.com/x", allow_loopback=True)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [(2, 1, 6, "", ("1.1.1.1", 443))])
    assert refuse_address("https://good.example.com/x", allow_loopback=False) is None
    both = [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: both)
    assert refuse_address("https://half.example.com/x", allow_loopback=False)
