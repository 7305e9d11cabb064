"""A download from a host in this process that answers as it is scripted: what is asked for, kept and given up."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from tests.wan_remote.raw_server import Raw, head, raw_server
from tests.wan_remote.scripted import BODY, Script
from tests.wan_remote.test_exchanges import dripping
from wan_remote.errors import BadDownload, Interrupted, ResultExpired, StorageError, Unreachable

download = importlib.import_module("wan_remote.transport.download")  # the room gives its function that name

Fetch = Callable[..., Any]


TAG = '"strong"'


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
