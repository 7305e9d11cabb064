"""Calls that may be repeated: how often, how long between, and when no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from wan_remote import retry
from wan_remote.errors import RateLimited, RemoteError
from wan_remote.providers.base import OK, Reply
from wan_remote.retry import LONGEST_PAUSE, pause
from wan_remote.transport import Answer, Call, Failure, Lost


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


def test_pauses_double_up_to_a_limit_with_jitter():
    for attempt in range(12):
        longest = min(LONGEST_PAUSE, 0.5 * 2**attempt)
        drawn = [pause(attempt) for _ in range(200)]
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest
        assert len(set(drawn)) > 100
