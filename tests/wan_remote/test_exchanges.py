"""One exchange with a cloud: bounded whatever the other side does, stopped at once, and clear about what was sent."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.wan_remote.fault_case import GMI
from tests.wan_remote.raw_server import Raw, answering, head, length, raw_server
from tests.wan_remote.world import TestWatch
from wan_remote import watch as watches
from wan_remote.secret import Secret
from wan_remote.transport import Answer, Api, Call, Failure, Lost, api
from wan_remote.transport.connections import open_session
from wan_remote.transport.cutoff import Cutoff

SECRET = Secret("k" * 20, "a test")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BODY = {"image": "A" * 8_000_000}  # more than the system takes at once


def slow_reader(pause: float, step: int = 2**17) -> Callable[[socket.socket, Raw], None]:
    def talk(sock: socket.socket, raw: Raw) -> None:
        start, rest = head(sock)
        left = length(start) - len(rest)
        while left > 0 and not raw.over.wait(pause):
            left -= len(part := sock.recv(step))
            if not part:
                return
        sock.sendall(OK)

    return talk


def dripping(sent: bytes, again: bytes, pause: float = 0.05) -> Callable[[socket.socket, Raw], None]:
    def talk(sock: socket.socket, raw: Raw) -> None:
        head(sock)
        sock.sendall(sent)
        while not raw.over.wait(pause):
            sock.sendall(again)

    return talk


DRIPS = {
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "100 Continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
}


def silent(sock: socket.socket, raw: Raw) -> None:
    """Also to those who want to speak of certificates."""
    raw.over.wait(20)


def call(raw: Raw, method: str = "POST", *, firm: bool = False, **options: Any) -> Answer | Lost:
    return Api(raw.address, SECRET).call(Call(method=method, path="/jobs", **options), firm=firm)


def timed(call: Callable[[], Answer | Lost]) -> tuple[Answer | Lost, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


# -- a slow line ------------------------------------------------------------------------------------------------------


def test_a_large_body_gets_through_a_slow_line(monkeypatch):
    monkeypatch.setattr(api, "CONNECT", 0.5)  # what the HTTP library would give the sending too
    with raw_server(slow_reader(0.02), room=2**16) as raw:
        answer, took = timed(lambda: call(raw, body=BODY, read=5.0))
    assert isinstance(answer, Answer)
    assert took > 1.0


@pytest.mark.parametrize("pause", [0.2, 60.0])  # the first moves all the time
def test_a_line_that_is_too_slow_or_stands_still_is_told(monkeypatch, pause):
    monkeypatch.setattr(api, "SLOWEST", 10**9)
    with raw_server(slow_reader(pause), room=2**16) as raw:
        answer, took = timed(lambda: call(raw, body=BODY, read=0.3))
    assert answer == Lost(failure=Failure.LOST, why=api.TOO_SLOW)
    assert took < 3.0


def test_a_line_that_was_cut_off_has_not_sent_all_of_it(monkeypatch):
    """However late that is looked at: the HTTP library goes on to the answer when its sending breaks."""
    monkeypatch.setattr(api, "SLOWEST", 10**9)
    told = api._given_up
    monkeypatch.setattr(api, "_given_up", lambda cutoff: time.sleep(0.5) or told(cutoff))
    with raw_server(slow_reader(0.2), room=2**16) as raw:
        assert call(raw, body=BODY, read=0.3) == Lost(failure=Failure.LOST, why=api.TOO_SLOW)


def test_the_person_learns_that_it_was_the_line(world, monkeypatch):
    monkeypatch.setattr("wan_remote.submission.READ", 0.3)

    def talk(sock: socket.socket, raw: Raw) -> None:
        start, _ = head(sock)
        if start.startswith(b"POST"):
            raw.over.wait(20)
        else:
            sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"requests": []}')

    noise = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    with raw_server(talk, room=2**16) as raw:
        monkeypatch.setenv("GMI_BASE_URL", raw.address)
        outcome = world.run(world.gmi(first=noise, last=noise))
    assert (outcome.end, world.states()) == ("SubmissionUnknown", ["intent"])
    assert f"took the submission ({api.TOO_SLOW}), so you may be billed" in str(outcome.error)


# -- an answer that never ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", DRIPS)
def test_what_drips_for_ever_is_given_up(what):
    with raw_server(DRIPS[what]) as raw:
        answer, took = timed(lambda: call(raw, "GET", read=0.3))
    assert answer == Lost(failure=Failure.LOST, why="the answer took too long")
    assert 0.6 <= took < 3.0


def test_size_gives_no_more_than_the_longest(monkeypatch):
    monkeypatch.setattr(api, "LONGEST", 0.5)
    with raw_server(dripping(OK.replace(b"2\r\n", b"99999999\r\n"), b" " * 2**16)) as raw:
        answer, took = timed(lambda: call(raw, "GET", read=0.3))
    assert answer == Lost(failure=Failure.LOST, why="the answer took too long")
    assert took < 3.0


# -- a stop -----------------------------------------------------------------------------------------------------------


def stopped_after(raw: Raw, base: str, *, firm: bool = False, **options: Any) -> tuple[Answer | Lost, float]:
    """The end of a call, and how long after the stop it came."""
    stop, moment = threading.Event(), [0.0]

    def press() -> None:
        raw.met.wait(5)
        time.sleep(0.3)
        moment[0] = time.monotonic()
        stop.set()

    threading.Thread(target=press).start()
    answer = Api(base, SECRET).call(Call(method="GET", path="/jobs", **options), stop=stop, firm=firm)
    return answer, time.monotonic() - moment[0]


@pytest.mark.parametrize("what", [*DRIPS, "silence"])
def test_a_stop_ends_a_call_at_once(what):
    with raw_server(DRIPS.get(what, silent)) as raw:
        answer, took = stopped_after(raw, raw.address)
    assert answer == Lost(failure=Failure.LOST, why="stopped")
    assert took < 5.0


def test_a_request_that_has_begun_may_be_seen_through():
    with raw_server(DRIPS["headers"]) as raw:
        answer, took = stopped_after(raw, raw.address, firm=True, read=0.6)
    assert answer == Lost(failure=Failure.LOST, why="the answer took too long")
    assert 0.6 < took < 3.0


def test_until_it_has_begun_a_stop_ends_it_all_the_same():
    with raw_server(silent) as raw:
        answer, took = stopped_after(raw, f"https://127.0.0.1:{raw.port}", firm=True)
    assert answer == Lost(failure=Failure.STOPPED, why="stopped")
    assert took < 5.0


def test_a_name_that_is_looked_up_for_ever_is_given_up_and_nothing_is_sent_later(monkeypatch):
    real, release = socket.getaddrinfo, threading.Event()

    def slow(*given, **named):
        release.wait(5)
        return real(*given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(api, "REACH", 0.3)
    asked = []
    with raw_server(lambda sock, raw: asked.append(sock.recv(10))) as raw:
        answer, took = timed(lambda: call(raw, firm=True, body={}))
        release.set()
        raw.met.wait(1.0)
        time.sleep(0.1)
    assert answer == Lost(failure=Failure.UNREACHED, why="no connection in 0 s")
    assert took < 2.0
    assert b"".join(asked) == b""


@pytest.mark.parametrize("tries", [1, 3])
def test_a_stop_is_heard_while_a_submission_still_connects(world, monkeypatch, tries):
    monkeypatch.setattr("wan_remote.submission.CONNECTS", tries)
    with raw_server(silent) as raw:
        monkeypatch.setenv("GMI_BASE_URL", f"https://127.0.0.1:{raw.port}")
        outcome = world.run(world.gmi(), stop_when=raw.met.is_set)
    assert outcome.end == "Interrupted"
    assert world.states() == ["rejected"]
    assert "stopped before anything was sent to GMI Cloud" in world.entries()[0].read_text()
    assert outcome.after_stop < 2.0


# -- many at once -----------------------------------------------------------------------------------------------------


def test_sixteen_polls_that_hang_keep_nobody_waiting(world):
    world.real_time(0.02)
    world.poll_soon()
    hang = 15.0
    world.cloud.faults("gmi.status", {"kind": "hang", "seconds": hang, "times": 16})
    watch = TestWatch()

    async def main() -> float:
        began = time.monotonic()
        stuck = [asyncio.ensure_future(world.start(world.gmi(prompt=f"job {n}"), watch)) for n in range(16)]
        while len(world.cloud.records("gmi.status")) < 16:
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < hang
        began = time.monotonic()
        await world.start(world.gmi(prompt="one more"))
        took = time.monotonic() - began
        watch.stopped.set()
        await asyncio.gather(*stuck, return_exceptions=True)
        return took

    assert asyncio.run(main()) < hang / 2


def test_threads_end_with_the_work(monkeypatch):
    gate, workers = threading.Event(), watches._Workers()
    monkeypatch.setattr(watches, "_workers", workers)

    async def main() -> None:
        works = (watches.in_thread(lambda stop: gate.wait(10), watches.Watch()) for _ in range(20))
        waiting = asyncio.gather(*works)
        while len(workers._busy) < 20:
            await asyncio.sleep(0.02)
        gate.set()
        assert all(await waiting)

    asyncio.run(asyncio.wait_for(main(), 10))
    end = time.monotonic() + 5.0
    while workers._busy and time.monotonic() < end:
        time.sleep(0.02)
    assert not workers._busy


# -- certificates -----------------------------------------------------------------------------------------------------


def relay(port: int) -> Callable[[socket.socket, Raw], None]:
    """A proxy that leads every connection to one port of this machine, with a certificate of that place."""

    def talk(sock: socket.socket, raw: Raw) -> None:
        start, _ = head(sock)
        assert start.startswith(b"CONNECT ")
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as there:
            threading.Thread(target=pump, args=(there, sock), daemon=True).start()
            pump(sock, there)

    return talk


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            target.sendall(part)
    except OSError:
        pass


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program to make a certificate with")
@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_certificate_that_is_not_trusted_names_the_way_out(world, monkeypatch, by_proxy):
    port = world.cloud.tls()
    with raw_server(relay(port)) as raw:
        if by_proxy:
            monkeypatch.setenv("HTTPS_PROXY", raw.address)
            monkeypatch.setenv("NO_PROXY", "")
        base = "https://api.example.com" if by_proxy else f"https://127.0.0.1:{port}"
        monkeypatch.setenv("GMI_BASE_URL", base)
        outcome = world.run(world.gmi())
        assert raw.met.is_set() is by_proxy
    assert outcome.end == "InsecureConnection"
    assert "REQUESTS_CA_BUNDLE" in str(outcome.error)
    assert world.cloud.posts(GMI) == 0


def refusing(sock: socket.socket, raw: Raw) -> None:
    head(sock)
    sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


def hanging_up(sock: socket.socket, raw: Raw) -> None:
    head(sock)


@pytest.mark.parametrize(
    ("talk", "scheme", "failure", "why"),
    [
        (refusing, "https", Failure.UNREACHED, "the proxy can't be reached or refuses"),
        (hanging_up, "https", Failure.UNREACHED, None),
        (hanging_up, "http", Failure.LOST, "the connection through the proxy broke"),
    ],
)
def test_what_was_sent_through_a_proxy_is_told_by_the_connection(monkeypatch, talk, scheme, failure, why):
    with raw_server(talk) as raw:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", raw.address)
        monkeypatch.setenv("NO_PROXY", "")
        answer = Api(f"{scheme}://api.example.com", SECRET).call(Call(method="POST", path="/jobs", body={}))
    assert isinstance(answer, Lost)
    assert answer.failure is failure
    assert why in (None, answer.why)  # releases of the HTTP library differ in whose fault a proxy's silence is


def test_a_handshake_that_breaks_off_has_sent_nothing():
    with raw_server(lambda sock, raw: None) as raw:
        answer = Api(f"https://127.0.0.1:{raw.port}", SECRET).call(Call(method="POST", path="/jobs", body={}))
    assert answer == Lost(failure=Failure.UNREACHED, why="no connection")


def test_every_call_has_a_connection_of_its_own():
    met = []

    def talk(sock: socket.socket, raw: Raw) -> None:
        met.append(sock.getpeername())
        answering(b"{}")(sock, raw)

    with raw_server(talk) as raw:
        asked = Api(raw.address, SECRET)
        for _ in range(3):
            assert isinstance(asked.call(Call(method="GET", path="/jobs")), Answer)
    assert len(set(met)) == 3


def test_what_stands_under_a_redirect_is_not_read():
    """The library would read all of it, however long, to see whether it goes on from there."""

    def talk(sock, raw):
        head(sock)
        sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: /on\r\nContent-Length: 9000000000\r\n\r\n" + b"x" * 65536)
        raw.over.wait(20)

    with raw_server(talk) as raw, open_session(Cutoff(threading.Event(), connect=5, limit=30, slowest=1), 5) as session:
        began = time.monotonic()
        answer = session.get(raw.address, allow_redirects=False, stream=True, timeout=5)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/on")
        assert time.monotonic() - began < 3
