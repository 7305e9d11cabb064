"""One call of an API: its answer, its headers and how it breaks."""

from __future__ import annotations

import logging
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.wan_remote.scripted import Script
from wan_remote.secret import Secret
from wan_remote.transport import Answer, Call, Failure, Lost, api, bodies


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
    asking = api.Api(base, Secret("k" * 20, "test"), {"X-Org": "o"})
    answer = asking.call(Call(method="GET", path="/jobs", query={"n": "1"}))
    assert isinstance(answer, Answer)
    path, headers = script.requests[0]
    assert path == "/jobs?n=1"
    assert headers["X-Org"] == "o"
    assert headers["Accept"] == "application/json"
    assert headers["Authorization"] == "Bearer " + "k" * 20
    script.requests.clear()
    api.Api(base, Secret("k" * 20, "test")).call(Call(method="GET", path="/jobs"))
    assert "X-Org" not in script.requests[0][1]


def test_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES", 10)
    bodies_told = (b"1234567890", b"12345678901", b"")
    for body in bodies_told:
        script.say(body=body)
    base = script.address.partition("/clip")[0]
    found = [api.Api(base, Secret("k" * 20, "test")).call(Call(method="GET", path="/jobs")) for _ in bodies_told]
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
def test_what_a_broken_call_was(monkeypatch: pytest.MonkeyPatch, error: Exception, why: str, begun: bool) -> None:
    """What was sent is for the connection alone to say."""

    def broken(cutoff: Any, silence: float) -> Any:
        cutoff.begun = begun
        raise error

    monkeypatch.setattr(api, "open_session", broken)
    lost = api.exchange("GET", "https://x.test", auth=api.NOBODY, headers={}, read=1.0)
    assert isinstance(lost, Lost)
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


def answer(retry_after: str, date: str = "") -> Answer:
    return Answer(status=429, headers={"retry-after": retry_after, "date": date}, body=b"")


def test_retry_after_is_read_in_both_forms():
    assert answer("3").retry_after == 3.0
    assert answer("86400").retry_after == 86400.0
    assert answer("").retry_after is None
    assert answer("soon").retry_after is None
    assert answer("-3").retry_after is None
    there = 1_700_000_000  # the cloud's clock, however far from ours
    assert answer(formatdate(there + 30, usegmt=True), formatdate(there, usegmt=True)).retry_after == 30.0
    assert answer(formatdate(there - 30, usegmt=True), formatdate(there, usegmt=True)).retry_after == 0.0


def test_answers_that_are_no_json_are_none():
    for body in (b"", b"<html>", b"[" * 100_000, None, b"\xff"):
        assert Answer(status=200, headers={}, body=body).json() is None
    assert Answer(status=200, headers={}, body=b'{"a": 1}').json() == {"a": 1}


def test_the_clouds_time_goes_on_with_ours(monkeypatch):
    now, wall = [50.0], [5000.0]
    monkeypatch.setattr(api, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: wall[0]))
    monkeypatch.setattr(api, "exchange", lambda *given, **named: answer("", formatdate(1000, usegmt=True)))
    asked = api.Api("https://x.test", Secret("k" * 20, "a test"))
    assert asked.time is None
    asked.call(Call(method="GET", path="/jobs"))
    now[0], wall[0] = now[0] + 30.0, wall[0] + 31.0
    assert asked.time == 1030.0
    for change in (3600.0, -3600.0):  # it slept, or its date was set
        wall[0] += change
        assert asked.time is None
        asked.call(Call(method="GET", path="/jobs"))
        assert asked.time == 1000.0
