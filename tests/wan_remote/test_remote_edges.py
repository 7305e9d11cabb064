"""Boundaries of the HTTP and journal modules, each a line that nothing else would notice if it were wrong.

A server in this process answers what it is told to; everything else is called directly. Written after mutation testing
(``docs/mutation.md``).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import importlib
import json
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.wan_remote.raw_server import Raw, head, raw_server
from tests.wan_remote.test_exchanges import dripping
from wan_remote import retry
from wan_remote.clock import Clock
from wan_remote.errors import (
    BadDownload,
    Interrupted,
    InvalidRequest,
    RateLimited,
    RemoteError,
    ResultExpired,
    StorageError,
    Unreachable,
)
from wan_remote.journal import Entry, Journal, fingerprint
from wan_remote.journal.format import parse
from wan_remote.journal.tidying import KEPT
from wan_remote.locks import try_lock
from wan_remote.providers.base import OK, Call, Reply
from wan_remote.secret import Secret
from wan_remote.states import State
from wan_remote.transport import Answer, Failure, Lost, addresses, api, bodies, guard

download = importlib.import_module("wan_remote.transport.download")  # the room gives its function that name

Fetch = Callable[..., Any]
BODY = bytes(range(256)) * 300  # several pieces
TAG = '"strong"'


# -- a server that answers what it is told to ------------------------------------------------------------------


class Script:
    """Answers in turn; the last one again and again. Each: status, headers, body, and how much of it is sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes, int | None]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.address = ""

    def say(self, status: int = 200, body: bytes = BODY, sent: int | None = None, **headers: str) -> None:
        self.answers.append((status, {k.replace("_", "-"): v for k, v in headers.items()}, body, sent))


@pytest.fixture
def script() -> Iterator[Script]:
    told = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests.append((self.path, dict(self.headers)))
            status, headers, body, sent = told.answers[min(len(told.requests), len(told.answers)) - 1]
            self.send_response_only(status)
            if "Content-Length" not in headers and headers.pop("No-Length", None) is None:
                self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:sent])
            self.close_connection = True

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    told.address = f"http://127.0.0.1:{server.server_port}/clip.mp4?signature=secret"
    yield told
    server.shutdown()
    server.server_close()


class Quick(threading.Event):
    """A stop that is never pressed, and remembers how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def fetch(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    monkeypatch.setattr(download, "why_no_video", lambda part: None)
    monkeypatch.setattr(download, "ending", lambda part: ".mp4")

    def call(**options: Any) -> Any:
        options = {"allow_loopback": True, "stop": Quick(), **options}
        return download.download(script.address, tmp_path / "clip.mp4", **options)

    return call


def test_a_whole_file(script: Script, fetch: Fetch, tmp_path: Path) -> None:
    script.say(ETag=TAG)
    told: list[tuple[int, int | None]] = []
    made = fetch(on_bytes=lambda done, total: told.append((done, total)))
    assert made.path.read_bytes() == BODY
    assert (made.size, made.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {len(BODY)}
    assert os.listdir(tmp_path) == ["clip.mp4"]
    (_, headers), *others = script.requests
    assert not others
    assert headers["Accept-Encoding"] == "identity"
    assert "Range" not in headers
    assert "If-Range" not in headers
    with pytest.raises(FrozenInstanceError):
        made.size = 1  # type: ignore[misc]


def test_a_broken_download_goes_on_where_it_broke(script: Script, fetch: Fetch) -> None:
    half = 40_000
    script.say(ETag=TAG, sent=half)
    script.say(206, BODY[half:], ETag=TAG, Content_Range=f"bytes {half}-{len(BODY) - 1}/{len(BODY)}")
    stop = Quick()
    told: list[tuple[int, int | None]] = []
    made = fetch(stop=stop, on_bytes=lambda done, total: told.append((done, total)))
    assert made.path.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in script.requests] == [None, f"bytes={half}-"]
    assert script.requests[1][1]["If-Range"] == TAG
    assert stop.waits == [0.5]
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("tag", [None, 'W/"weak"', "bare"])
def test_without_a_strong_tag_it_starts_again(script: Script, fetch: Fetch, tag) -> None:
    headers = {} if tag is None else {"ETag": tag}
    script.say(sent=40_000, **headers)
    script.say(**headers)
    assert fetch().path.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in script.requests] == [None, None]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, BODY, {"ETag": TAG}),  # the file changed: all of it comes
        (206, BODY[9:], {"ETag": TAG, "Content_Range": "bytes 9-76799/76800"}),  # another part than was asked for
        (206, BODY, {"ETag": TAG}),  # a part that does not say which
        (416, b"", {}),
        (503, b"", {}),
    ],
)
def test_whatever_comes_in_place_of_the_rest_makes_one_whole_file(
    script: Script, fetch: Fetch, status: int, body: bytes, headers: dict[str, str]
) -> None:
    script.say(ETag=TAG, sent=40_000)
    script.say(status, body, **headers)
    script.say(ETag=TAG)
    made = fetch()
    assert made.path.read_bytes() == BODY
    assert made.size == len(BODY)
    assert len(script.requests) == (2 if status == 200 else 3)
    ranges = [headers.get("Range") for _, headers in script.requests]
    assert ranges[1] == "bytes=40000-"
    if status != 200:
        assert ranges[2] == ("bytes=40000-" if status == 503 else None)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_gone_is_not_asked_for_again(script: Script, fetch: Fetch, status: int) -> None:
    script.say(status, b"gone")
    with pytest.raises(ResultExpired, match=rf"127.0.0.1 no longer gives the video \({status}\)"):
        fetch()
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [201, 204, 400, 411, 418, 500, 503])
def test_other_answers_are_asked_for_five_times(script: Script, fetch: Fetch, status) -> None:
    script.say(status, b"")
    stop = Quick()
    with pytest.raises(BadDownload, match=rf"127.0.0.1 does not give the video \({status}\); queue") as caught:
        fetch(stop=stop)
    assert len(script.requests) == 5
    assert stop.waits == [0.5, 1.0, 2.0, 4.0]
    assert "signature" not in str(caught.value)


def test_a_cut_is_told_with_its_bytes_and_leaves_no_scrap(script: Script, fetch: Fetch, tmp_path: Path) -> None:
    script.say(sent=1000)
    with pytest.raises(BadDownload, match=r"cuts the video short \(1,000 of 76,800 bytes\); try later"):
        fetch()
    assert not os.listdir(tmp_path)
    script.answers.clear()
    script.say(ETag=TAG, sent=1000)
    script.say(206, BODY[1000:], sent=500, ETag=TAG, Content_Range="bytes 1000-76799/76800")
    script.requests.clear()
    with pytest.raises(BadDownload, match="another part|cuts the video short"):
        fetch()


@pytest.mark.parametrize(("most", "allowed"), [(len(BODY), True), (len(BODY) - 1, False)])
@pytest.mark.parametrize("announced", [True, False])
def test_what_is_too_large_is_not_fetched(
    script: Script, fetch: Fetch, monkeypatch, most: int, allowed: bool, announced: bool
) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", most)
    script.say(**({} if announced else {"No_Length": "1"}))
    if allowed:
        assert fetch().size == len(BODY)
        return
    words = "announces 76,800 bytes, more than a clip has" if announced else "sends more than a clip has"
    with pytest.raises(BadDownload, match=words):
        fetch()
    assert len(script.requests) == 1


def test_the_hosts_own_checksum_counts(script: Script, fetch: Fetch) -> None:
    right = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
    script.say(x_goog_hash=f"crc32c=AAAA==, md5={right}")
    assert fetch().size == len(BODY)
    for wrong in (base64.b64encode(b"0" * 16).decode(), "zzzz"):
        script.answers.clear()
        script.requests.clear()
        script.say(x_goog_hash=f"md5={wrong}", ETag=TAG)
        with pytest.raises(BadDownload, match="its bytes are not those that the host announced"):
            fetch()
        assert len(script.requests) == 5
        assert all("Range" not in headers for _, headers in script.requests)  # the damaged file was thrown away


def test_a_page_in_place_of_a_video_is_thrown_away(script: Script, fetch, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "why_no_video", lambda part: "it has no video stream")
    script.say(body=b"<html>later</html>", ETag=TAG)
    with pytest.raises(BadDownload, match="is no complete video: it has no video stream; queue the same inputs"):
        fetch()
    assert len(script.requests) == 5
    assert not os.listdir(tmp_path)


def test_what_was_paid_for_and_can_not_be_read_is_kept(script: Script, fetch, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "why_no_video", lambda part: "its frames can't be decoded")
    script.say(ETag=TAG)
    with pytest.raises(BadDownload, match=r"frames can't be decoded; it is kept as .*clip\.unread, look at it there"):
        fetch()
    assert len(script.requests) == 5
    assert os.listdir(tmp_path) == ["clip.unread"]
    assert (tmp_path / "clip.unread").read_bytes() == BODY


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_a_host_that_drips_is_given_up(monkeypatch, tmp_path: Path, sent: bytes) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with raw_server(dripping(sent, b"a")) as raw, pytest.raises(Unreachable, match="sends too slowly") as caught:
        download.download(raw.address, tmp_path / "clip.mp4", allow_loopback=True, stop=Quick())
    assert str(caught.value) == "127.0.0.1 sends too slowly (under 4,096 bytes a second); try later"
    assert not os.listdir(tmp_path)


def test_a_host_that_sends_for_long_is_let_as_long_as_it_is_not_slow(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    monkeypatch.setattr(download, "why_no_video", lambda part: None)
    monkeypatch.setattr(download, "ending", lambda part: ".mp4")

    def talk(sock: socket.socket, raw: Raw) -> None:
        head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
        for _ in range(20):
            sock.sendall(b"a" * 1000)
            time.sleep(0.05)

    with raw_server(talk) as raw:
        made = download.download(raw.address, tmp_path / "clip.mp4", allow_loopback=True, stop=Quick())
    assert made.size == 20_000


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_packed_file_is_unpacked(script: Script, fetch: Fetch, how: str) -> None:
    packed = gzip.compress(BODY) if how == "gzip" else zlib.compress(BODY)
    wrong = base64.b64encode(hashlib.md5(packed, usedforsecurity=False).digest()).decode()
    script.say(body=packed, sent=20, ETag=TAG, Content_Encoding=how, x_goog_hash=f"md5={wrong}")
    script.say(body=packed, ETag=TAG, Content_Encoding=how, x_goog_hash=f"md5={wrong}")
    assert fetch().path.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in script.requests] == [None, None]  # parts of it can't be unpacked


def test_a_file_packed_in_another_way_is_told(script: Script, fetch: Fetch) -> None:
    script.say(Content_Encoding="br")
    with pytest.raises(BadDownload, match="packed in a way that was not asked for; queue the same inputs"):
        fetch()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed_and_no_more(script: Script, fetch, status: int) -> None:
    for number in range(3):
        script.say(status, b"", Location=f"/hop{number}")
    script.say()
    assert fetch().size == len(BODY)
    assert [path for path, _ in script.requests] == ["/clip.mp4?signature=secret", "/hop0", "/hop1", "/hop2"]
    script.answers.clear()
    script.requests.clear()
    script.say(status, b"", Location="/round")
    with pytest.raises(BadDownload, match="127.0.0.1 sends the download in a circle; nothing was fetched"):
        fetch()
    assert len(script.requests) == 4


def test_a_redirect_to_a_private_address_is_not_followed(script: Script, fetch: Fetch) -> None:
    script.say(302, b"", Location="https://10.0.0.1/x")
    with pytest.raises(BadDownload, match="not fetched from where the cloud says it is: it is not a public address"):
        fetch()
    assert len(script.requests) == 1


def test_a_stop_ends_a_download_and_leaves_no_scrap(script: Script, fetch, tmp_path: Path) -> None:
    script.say(ETag=TAG)
    stop = Quick()
    with pytest.raises(Interrupted):
        fetch(stop=stop, on_bytes=lambda done, total: stop.set())
    assert not os.listdir(tmp_path)
    stop = Quick()
    script.answers.clear()
    script.say(500, b"")
    stop.wait = lambda timeout=None: True  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        fetch(stop=stop)


def test_a_disk_that_fails_is_told(script: Script, fetch: Fetch, monkeypatch, tmp_path) -> None:
    script.say()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(StorageError, match=r"can't take the video \(No space left on device\); make room"):
        fetch()
    assert not os.listdir(tmp_path)
    (tmp_path / "dir.part").mkdir()
    download.forget(tmp_path / "dir.part")  # can't be unlinked: no error


# -- addresses -------------------------------------------------------------------------------------------------


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


# -- calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 200])
def test_which_answers_redirect(status: int) -> None:
    assert Answer(status=status, headers={}, body=b"").redirects is (status in (301, 302, 303, 307, 308))


def test_how_long_to_wait() -> None:
    def asked(value: str, **headers: str) -> float | None:
        return Answer(status=429, headers={"retry-after": value, **headers}, body=b"").retry_after

    assert asked(" 12 ") == 12.0
    assert asked("1234567890123") == 123456789.0
    assert asked("soon") is None
    assert asked("") is None
    now = 1_700_000_000
    assert asked(formatdate(now + 90), date=formatdate(now)) == 90.0
    assert asked(formatdate(now - 90), date=formatdate(now)) == 0.0
    assert 50 < (asked(formatdate(time.time() + 60)) or 0) <= 61


def test_headers_of_a_cloud_are_sent_besides(script: Script) -> None:
    script.say(200, b"{}")
    base = script.address.partition("/clip")[0]
    answer = api.Api(base, Secret("k" * 20, "test"), {"X-Org": "o"}).call("GET", "/jobs", query={"n": "1"})
    assert isinstance(answer, Answer)
    path, headers = script.requests[0]
    assert path == "/jobs?n=1"
    assert headers["X-Org"] == "o"
    assert headers["Accept"] == "application/json"
    assert headers["Authorization"] == "Bearer " + "k" * 20
    script.requests.clear()
    api.Api(base, Secret("k" * 20, "test")).call("GET", "/jobs")
    assert "X-Org" not in script.requests[0][1]


def test_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES", 10)
    bodies_told = (b"1234567890", b"12345678901", b"")
    for body in bodies_told:
        script.say(body=body)
    base = script.address.partition("/clip")[0]
    found = [api.Api(base, Secret("k" * 20, "test")).call("GET", "/jobs") for _ in bodies_told]
    assert [answer.body for answer in found if isinstance(answer, Answer)] == [b"1234567890", None, b""]


def test_an_upload_may_be_silent_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(api, "exchange", lambda *a, **k: given.append(k))
    stop = threading.Event()
    api.put("https://a.b/", b"x", {"A": "b"}, stop)
    assert given[0]["read"] == 3 * api.READ
    assert given[0]["headers"]["A"] == "b"
    assert given[0]["data"] == b"x"
    assert given[0]["stop"] is stop


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (requests.exceptions.ProxyError("x"), "the proxy can't be reached or refuses"),
        (requests.exceptions.ConnectTimeout("x"), "no connection within 10 seconds"),
        (requests.exceptions.ConnectionError("reset"), "no connection"),
        (requests.exceptions.InvalidURL("x"), "the address is no web address"),
        (UnicodeError("x"), "the address is no web address"),
        (requests.exceptions.InvalidSchema("x"), "the proxy is a SOCKS one, which needs: pip install pysocks"),
        (OSError("x"), "no connection"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_what_a_broken_call_was(error: Exception, why: str, begun: bool) -> None:
    """What was sent is told by the connection alone."""
    cutoff = SimpleNamespace(over=False, begun=begun, untrusted=False, stuck=False)
    lost = api._lost(error, cutoff)  # type: ignore[arg-type]
    if begun:
        assert lost.failure is Failure.LOST
        assert "broke" in lost.why or lost.why == "no answer in time"
    else:
        assert lost == Lost(failure=Failure.UNREACHED, why=why)


def test_queries_stay_out_of_the_log() -> None:
    def filtered(arguments: Any) -> Any:
        record = logging.LogRecord("n", logging.DEBUG, "p", 1, "%s", None, None)
        record.args = arguments
        assert api.HIDE_QUERIES.filter(record) is True
        return record.args

    assert filtered(("/a?secret=1", 7, "plain", "x?y?z")) == ("/a?...", 7, "plain", "x?...")
    assert filtered({"a": "b?c"}) == {"a": "b?c"}
    assert filtered(None) is None
    assert api.host_of("https://a.b/c?d") == "a.b"
    assert api.host_of("nothing") == "?"


# -- repeated calls --------------------------------------------------------------------------------------------


class FakeProvider:
    label = "Cloud"
    name = "gmi"


def reply(status: int = OK, body: bytes = b"{}", http: int = 200, **headers: str) -> Reply:
    answer = Answer(status=http, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=body)
    return Reply(status=status, data=None, text="", answer=answer)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[float], int]]:
    """``ask`` over scripted answers: what came out, the pauses, and how often the cloud was asked."""
    monkeypatch.setattr(retry, "refusal", lambda provider, found, secret: RemoteError(f"refused {found.status}"))
    monkeypatch.setattr(retry, "pause", lambda attempt: 1000.0 + attempt)

    def call(found: list[Any], **options: Any) -> tuple[Any, list[float], int]:
        pauses: list[float] = []
        asked = []

        async def once(session: Any, call: Any, said: str = "") -> Any:
            asked.append(1)
            return found[min(len(asked), len(found)) - 1]

        async def sleep(seconds: float, *others: Any) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(retry, "once", once)
        monkeypatch.setattr(retry, "sleep", sleep)
        session: Any = SimpleNamespace(provider=FakeProvider(), secret=None, watch=None, clock=None)
        try:
            result: Any = asyncio.run(retry.ask(session, Call(method="GET", path="/"), **options))
        except RemoteError as error:
            result = error
        return result, pauses, len(asked)

    return call


def test_a_good_answer_ends_the_asking(asking) -> None:
    good = reply()
    assert asking([good]) == (good, [], 1)
    assert asking([reply(503), reply(429), good]) == (good, [1000.0, 1001.0], 3)
    assert asking([reply(body=b"<html>"), good]) == (good, [1000.0], 2)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, *range(520, 528), 529, 530])
def test_a_cloud_out_of_breath_is_asked_five_times(asking, status: int) -> None:
    error, pauses, asked = asking([reply(status)])
    assert str(error) == f"refused {status}"
    assert (pauses, asked) == ([1000.0, 1001.0, 1002.0, 1003.0], 5)
    assert asking([reply(status)], attempts=2)[1:] == ([1000.0], 2)
    assert asking([reply(status)], attempts=1)[1:] == ([], 1)


@pytest.mark.parametrize("status", [199, 201, 400, 401, 404, 409, 501, 528, 531])
def test_a_refusal_is_final(asking, status: int) -> None:
    error, pauses, asked = asking([reply(status)])
    assert (str(error), pauses, asked) == (f"refused {status}", [], 1)


def test_what_a_cloud_asks_for_is_waited_for(asking) -> None:
    good = reply()
    assert asking([reply(429, retry_after="7"), good])[1] == [7.0]
    assert asking([reply(429, retry_after="120"), good])[1] == [120.0]
    error, pauses, asked = asking([reply(429, retry_after="121"), good])
    assert isinstance(error, RateLimited)
    assert (pauses, asked) == ([], 1)


def test_calls_that_never_arrived_are_repeated_unless_they_can_not_be_trusted(asking) -> None:
    good = reply()
    assert asking([Lost(failure=Failure.LOST, why="x"), Lost(failure=Failure.UNREACHED, why="y"), good])[2] == 3
    error, pauses, asked = asking([Lost(failure=Failure.INSECURE, why="no")])
    assert "can't be trusted: it showed no" in str(error)
    assert (pauses, asked) == ([], 1)
    error, _, asked = asking([Lost(failure=Failure.UNREACHED, why="no connection")])
    assert "can't be reached: no connection" in str(error)
    assert asked == 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(150, "2 minutes"), (210, "4 minutes"), (5400, "90 minutes"), (5401, "1.5 hours"), (9000, "2.5 hours")],
)
def test_how_much_patience_a_cloud_wants(monkeypatch: pytest.MonkeyPatch, seconds: float, words: str) -> None:
    monkeypatch.setattr(retry, "refusal", lambda *a: RemoteError("Cloud is busy; try again later"))
    session: Any = SimpleNamespace(provider=None, secret=None)
    found = str(retry.too_long(session, seconds, reply(429)))
    assert found == f"Cloud is busy; it asks to wait for {words}"


# -- journal ---------------------------------------------------------------------------------------------------

NOW = 2e9


class Still(Clock):
    def time(self) -> float:
        return NOW


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    made = Journal(folder=tmp_path / "jobs", clock=Still())
    made.prepare()
    return made


def named(name: str, **changes: Any) -> Entry:
    made = Entry(
        fingerprint=name, provider="gmi", model="m", scope="s", parameters={"a": 1}, first="f", last="l", seed=1
    )
    return replace(made, **changes)


def test_a_fresh_entry_is_an_intent_with_nothing_known(book: Journal) -> None:
    made = named("n")
    assert made.state == State.INTENT
    assert made.id in ("", None)
    assert (made.submitted_at, made.ended_at) == (0.0, 0.0)
    with pytest.raises(FrozenInstanceError):
        made.state = State.DONE  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, AttributeError)):
        book.folder = Path()  # type: ignore[misc]
    with pytest.raises(TypeError):
        Journal(Path())  # type: ignore[call-arg, misc]


def test_fingerprints_do_not_depend_on_the_order_of_anything() -> None:
    one = fingerprint("p", "m", {"a": {"x": 1, "y": 2}, "b": 1}, "f", "l")
    assert one == fingerprint("p", "m", {"b": 1, "a": {"y": 2, "x": 1}}, "f", "l")
    assert len(one) == 40
    assert set(one) <= set("0123456789abcdef")


def test_entries_are_the_newest_first_and_readable_ones_only(book: Journal) -> None:
    for name, at in (("old", 1.0), ("new", 3.0), ("mid", 2.0)):
        book.write(named(name, intent_at=at))
    (book.folder / "aa.json").mkdir()  # can't be read
    (book.folder / "ab.json").write_text("{")
    (book.folder / "zz.json").mkdir()
    assert [found.fingerprint for found in book.entries()] == ["new", "mid", "old"]


def test_an_entry_that_can_not_be_read_stops_everything(book: Journal) -> None:
    (book.folder / "n.json").mkdir()
    with pytest.raises(StorageError, match="n.json can't be read .*; nothing was sent"):
        book.read("n")


def test_entries_are_private_and_sorted(book: Journal) -> None:
    book.write(named("n"))
    path = book.folder / "n.json"
    assert list(json.loads(path.read_text())) == sorted(json.loads(path.read_text()))
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert book.folder.stat().st_mode & 0o077 == 0
    assert not list(book.folder.glob("*.tmp-*"))


@pytest.mark.parametrize(
    "row", [[], None, 1, {}, {"v": 0}, {"v": "1"}, {"v": 99}, {"v": 1, "fingerprint": 3}, {"v": 1, "state": "x"}]
)  # fmt: skip
def test_rows_that_are_no_entries(row: object) -> None:
    assert parse(json.dumps(row).encode()) is None


@pytest.mark.parametrize(
    ("state", "ended", "touched", "kept"),
    [
        (State.DONE, NOW - KEPT - 1, NOW - KEPT - 1, True),
        (State.FAILED, NOW - KEPT - 1, NOW - KEPT - 1, False),
        (State.FETCHED, 1.0, NOW - KEPT - 1, False),
        (State.FETCHED, NOW - KEPT, NOW - KEPT - 1, True),
        (State.FETCHED, NOW - KEPT + 1, NOW - KEPT - 1, True),
        (State.FETCHED, NOW - KEPT - 1, NOW - KEPT, False),
        (State.FETCHED, NOW - KEPT - 1, NOW - KEPT + 1, True),
        (State.FETCHED, 0.0, NOW - KEPT - 1, True),
        (State.SUBMITTED, NOW - KEPT - 1, NOW - KEPT - 1, True),
        (State.INTENT, NOW - KEPT - 1, NOW - KEPT - 1, True),
    ],
)
def test_what_is_forgotten(book: Journal, state: str, ended: float, touched: float, kept: bool) -> None:
    (book.folder / "aa.json").write_text("{")  # before and after it: others don't stop the tidying
    book.write(named("n", state=state, ended_at=ended))
    book.write(named("zz", state=State.FETCHED, ended_at=1.0))
    for path in book.folder.glob("*.json"):
        os.utime(path, (touched, touched) if path.stem == "n" else (1.0, 1.0))
    (book.folder / "n.lock").touch()
    book.prune(book.folder)
    assert (book.folder / "n.json").exists() is kept
    assert (book.folder / "n.lock").exists() is kept
    assert not (book.folder / "zz.json").exists()
    book.write(named("n", state=State.FETCHED, ended_at=1.0))
    os.utime(book.folder / "n.json", (1.0, 1.0))
    (book.folder / "n.lock").unlink(missing_ok=True)
    book.prune(book.folder)  # no lock file there: no error
    assert not (book.folder / "n.json").exists()


def test_a_claim_keeps_others_waiting(book: Journal) -> None:
    order = []
    with book.claiming():
        other = threading.Thread(target=lambda: claim(book, order))
        other.start()
        time.sleep(0.15)
        order.append("first")
    other.join(5)
    assert order == ["first", "second"]
    with (book.folder / "claims.lock").open("a+b") as one, (book.folder / "claims.lock").open("a+b") as two:
        assert try_lock(one, book.folder)
        assert not try_lock(two, book.folder)


def claim(book: Journal, order: list[str]) -> None:
    with book.claiming():
        order.append("second")


def test_nothing_here_is_an_invalid_request() -> None:
    """The errors above are told apart by their classes; none is the one for wrong inputs."""
    for kind in (BadDownload, ResultExpired, Unreachable, StorageError, RateLimited):
        assert not issubclass(kind, InvalidRequest)
