"""What can go wrong with the file of a paid job: it is never lost, never half there, never somebody else's."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED, Again, Case
from tests.wan_remote.world import DOWNLOAD


def file(*script: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    return {"file": list(script)}


def heals(name: str, *script: dict[str, object], **more: object) -> Case:
    return Case(name=name, provider=GMI, faults=file(*script), **more)  # type: ignore[arg-type]


def stays(name: str, fault: dict[str, object], end: str = "BadDownload", **more: object) -> Case:
    """The job was paid: its id stays in the journal, and the same inputs collect it once the fault is gone."""
    return Case(
        name=name,
        provider=GMI,
        faults=file({"times": 0, **fault}),
        end=end,
        journal=("submitted", "done"),
        again=Again(posts=1),
        **more,  # type: ignore[arg-type]
    )


BODIES = [
    heals("cut short, with a length", {"kind": "cut", "keep": 9000}, asked={"file": 2}),
    heals("cut short three times", *[{"kind": "cut", "keep": 5000}] * 3, asked={"file": 4}),
    heals("cut short, without a length", {"kind": "cut", "keep": 9000, "length": False}, asked={"file": 2}),
    heals("reset before the first byte", {"kind": "reset"}, asked={"file": 2}),
    heals("cut short, then Range is ignored", {"kind": "cut", "keep": 9000}, {"kind": "no_range"}),
    heals("cut short, then 416", {"kind": "cut", "keep": 9000}, {"kind": "answer", "status": 416}),
    heals("500, then good", {"kind": "answer", "status": 500, "text": "oops"}),
    heals(
        "another Content-Type around a good clip",
        {"kind": "body", "headers": {"Content-Type": "application/octet-stream"}},
    ),
    heals("a page of HTML as video/mp4, once", {"kind": "body", "text": "<html>try later</html>"}),
    heals("cut at the border of a box, once", {"kind": "body", "cut_moov": True}),
    heals("the wrong md5, once", {"kind": "body", "headers": {"x-goog-hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}}),
    stays("a page of HTML as video/mp4", {"kind": "body", "text": "<html>no</html>"}),
    stays("a JSON error as video/mp4", {"kind": "body", "text": '{"error": "no such object"}'}),
    stays("zero bytes", {"kind": "body", "text": ""}),
    stays("cut at the border of a box", {"kind": "body", "cut_moov": True}),
    stays("the wrong md5", {"kind": "body", "headers": {"x-goog-hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}}),
    stays(
        "10 GB announced", {"kind": "answer", "headers": {"Content-Length": "10000000000", "Content-Type": "video/mp4"}}
    ),
    stays("nothing but 500", {"kind": "answer", "status": 500, "text": "oops"}, ("BadDownload|Unreachable")),
    *[
        heals(
            f"{status}, then good at a fresh URL",
            {"kind": "answer", "status": status},
            asked={"file": 2, "gmi.status": 4},
        )
        for status in (403, 404, 410)
    ],
    stays("403 to every URL", {"kind": "answer", "status": 403}, "ResultExpired"),
    Case(
        name="410 to every URL",
        provider=WAVESPEED,
        faults=file({"kind": "answer", "status": 410, "times": 0}),
        end="ResultExpired",
        journal=("submitted", "done"),
        again=Again(posts=1),
    ),
]


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.id)
def test_download(world, case):
    world.play("download", case)


BAD_PLACES = [
    "http://example.com/clip.mp4",
    "file:///etc/passwd",
    "ftp://example.com/clip.mp4",
    "https://169.254.169.254/latest/meta-data",
    "http://169.254.169.254/latest/meta-data",
    "https://10.0.0.1/clip.mp4",
    "https://[::ffff:10.0.0.1]/clip.mp4",
    "https://192.168.1.1/clip.mp4",
    "https://user:word@example.com/clip.mp4",
    "https://[x",
    "not an address",
]


@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_result_url_in_a_bad_place_is_refused(world, place):
    outcome = world.run(world.gmi(), plan=["queued", {"status": "success", "outcome": {"video_url": place}}])
    world.check("download", f"gmi: result at {place}", outcome, end="BadDownload|EmptyResult|BadResponse", posts=1)
    assert world.cloud.records("file") == []


@pytest.mark.parametrize("place", [*BAD_PLACES[:-1], "LOOP"])
def test_a_redirect_to_a_bad_place_is_refused(world, place):
    target = f"{world.cloud.storage}/files/x.mp4" if place == "LOOP" else place
    fault = {"kind": "answer", "status": 302, "headers": {"Location": target}, "times": 0}
    world.cloud.faults("file", fault)
    outcome = world.run(world.gmi())
    name = "gmi: redirects in a circle" if place == "LOOP" else f"gmi: redirect to {place}"
    world.check("download", name, outcome, end="BadDownload|UnexpectedRedirect", posts=1, journal=("submitted", "done"))
    world.cloud.faults("file")
    again = world.run(world.gmi())
    assert (again.end, world.cloud.posts()) == ("result", 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_good_place_is_followed_without_credentials(world, status):
    place = f"{world.cloud.storage}/elsewhere/file/clip.mp4"
    world.cloud.faults(
        "file", {"kind": "answer", "status": status, "headers": {"Location": place, "Set-Cookie": "a=1"}}
    )
    outcome = world.run(world.gmi())
    world.check("download", f"gmi: {status} to another host", outcome, end="result", posts=1)
    [record] = world.cloud.records("elsewhere")
    assert not {"authorization", "cookie", "x-organization-id"} & set(record["headers"])


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "169.254.1.1", "fd00::1", "100.64.0.1", "0.0.0.0"])
def test_a_name_that_resolves_to_a_private_address_is_refused(world, monkeypatch, address):
    real, connected = socket.getaddrinfo, []

    def resolve(host, port, *more, **words):
        if host != "cdn.example.com":
            return real(host, port, *more, **words)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(self, target):
        if str(target[0]) == address and address != "127.0.0.1":
            connected.append(target)
            raise OSError("refused by the test")
        return real_connect(self, target)

    real_connect = socket.socket.connect
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    place = {"video_url": "https://cdn.example.com/clip.mp4"}
    outcome = world.run(world.gmi(), plan=["queued", {"status": "success", "outcome": place}])
    name = f"gmi: result at a name that resolves to {address}"
    world.check("download", name, outcome, end="BadDownload|BadResponse", posts=1)
    assert connected == []


def test_resume_asks_for_the_missing_bytes_of_the_same_file(world):
    world.cloud.faults("file", {"kind": "cut", "keep": 9000})
    outcome = world.run(world.gmi())
    assert outcome.end == "result"
    first, second = world.cloud.records("file")
    assert "range" not in first["headers"]
    assert second["headers"]["range"] == "bytes=9000-"
    assert second["headers"]["if-range"].startswith('"')


def test_full_disk_in_mid_download_leaves_nothing_and_loses_nothing(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, hard))
    try:
        outcome = world.run(world.gmi())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    world.check(
        "download",
        "gmi: disk full in mid-download",
        outcome,
        end="StorageError",
        posts=1,
        journal=("submitted", "done"),
    )
    assert [path for path in world.output.rglob("*") if path.is_file()] == []
    assert (world.run(world.gmi()).end, world.cloud.posts()) == ("result", 1)


def test_death_between_the_last_byte_and_the_rename_leaves_no_half_file(world, monkeypatch):
    real = os.replace

    def die(source, target, **more):
        if str(target).endswith(".mp4"):
            raise KeyboardInterrupt
        return real(source, target, **more)

    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(Path, "replace", lambda self, target: die(self, target))
    with pytest.raises(BaseException):  # noqa: B017, PT011
        raise world.run(world.gmi()).error
    assert list(world.output.rglob("*.mp4")) == []
    monkeypatch.undo()
    world.environ(monkeypatch)
    outcome = world.run(world.gmi())
    world.check("download", "gmi: killed between the last byte and the rename", outcome, end="result", posts=1)


def test_a_dripping_download_is_given_up(world, monkeypatch):
    monkeypatch.setattr(DOWNLOAD, "PATIENCE", 0.4)
    monkeypatch.setattr(DOWNLOAD, "SLOWEST", 100_000)
    world.cloud.faults("file", {"kind": "drip", "step": 100, "seconds": 0.05, "times": 0})  # 13 s for the whole file
    outcome = world.run(world.gmi())
    name = "gmi: the file comes too slowly"
    world.check(
        "download", name, outcome, end="BadDownload|Unreachable", posts=1, journal=("submitted", "done"), within=6
    )
    world.cloud.faults("file")
    assert (world.run(world.gmi()).end, world.cloud.posts()) == ("result", 1)


def test_an_endless_download_is_stopped_at_the_cap(world, monkeypatch):
    monkeypatch.setattr(DOWNLOAD, "MOST_BYTES", 2_000_000)
    world.cloud.faults("file", {"kind": "endless", "fill": 400_000_000, "times": 0})
    outcome = world.run(world.gmi())
    name = "gmi: the file never ends"
    world.check("download", name, outcome, end="BadDownload", posts=1, journal=("submitted", "done"))
    sizes = [path.stat().st_size for path in world.output.rglob("*") if path.is_file()]
    assert sum(sizes) <= 2_200_000


def test_no_answer_from_the_file_host_in_time(world, monkeypatch):
    monkeypatch.setattr(DOWNLOAD, "READ", 0.3)
    world.cloud.faults("file", {"kind": "hang", "seconds": 1.0, "times": 2})
    outcome = world.run(world.gmi())
    world.check("download", "gmi: the file host hangs twice", outcome, end="result", posts=1)
