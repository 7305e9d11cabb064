"""Downloads of one file that follow each other or overlap: a stopped one must not spoil the next."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.wan_remote.stand_in import clips
from tests.wan_remote.world import DOWNLOAD
from wan_remote.errors import Unreachable
from wan_remote.transport import download, parts

DRIP = {"kind": "drip", "step": 3000, "seconds": 0.25}


@pytest.fixture
def slow_check(monkeypatch):
    """The first check of a file takes a second, as that of a long clip does."""
    real, started, ended = DOWNLOAD.why_no_video, threading.Event(), threading.Event()

    def check(path: Path) -> str | None:
        if started.is_set():
            return real(path)
        started.set()
        time.sleep(1.0)
        ended.set()
        return real(path)

    monkeypatch.setattr(DOWNLOAD, "why_no_video", check)
    return started, ended


def left(world) -> list[str]:
    return [path.name for path in world.output.rglob("*") if path.is_file()]


def test_stopped_while_the_file_is_checked_and_queued_again_at_once(world, slow_check):
    started, ended = slow_check
    first = world.run(world.gmi(), plan=["success"], stop_when=started.is_set)
    assert first.end == "Interrupted"
    assert not ended.is_set()  # the thread that was left alone still works on its file
    world.cloud.faults("file", DRIP)
    again = world.run(world.gmi())
    assert ended.is_set()
    name = "gmi: stopped while the file is checked, queued again at once"
    world.check("control", name, again, end="result", posts=1)
    assert left(world) == [again.value.path.name]


def test_a_stop_during_the_check_ends_without_a_file(world, slow_check):
    started, ended = slow_check
    assert world.run(world.gmi(), plan=["success"], stop_when=started.is_set).end == "Interrupted"
    assert ended.wait(5)
    deadline = time.monotonic() + 5
    while left(world) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left(world) == []  # neither under the final name nor in part


def test_what_a_killed_run_left_is_cleared_away(world):
    folder = world.output / "gmi"
    assert world.run(world.gmi()).end == "result"
    [path] = folder.glob("*.mp4")
    path.unlink()
    dead, elsewhere = subprocess.Popen([sys.executable, "-c", ""]), "0a0a0a"
    dead.wait()
    mine = parts.new_part(path).name.split(".")[-2].split("-")[0]
    left = [f"{path.name}.{mine}-{dead.pid}-00000000.part", f"{path.name}.part"]
    old = [f"{path.name}.{mine}-{os.getpid()}-00000001.part", f"{path.name}.{elsewhere}-{dead.pid}-00000002.part"]
    kept = [f"{path.name}.{mine}-{os.getpid()}-00000003.part", f"{path.name}.{elsewhere}-{dead.pid}-00000004.part"]
    other = [f"x.mp4.{mine}-{dead.pid}-00000000.part"]
    for name in left + old + kept + other:
        (folder / name).write_bytes(b"half")
    for name in [left[1], *old]:
        os.utime(folder / name, (1.0, 1.0))
    assert world.run(world.gmi()).end == "result"
    assert sorted(found.name for found in folder.glob("*.part")) == sorted(kept + other)


# -- a file that changes between two parts -----------------------------------------------------------------------


class Host:
    """Gives the first bytes of one clip, and the rest of another under the same address."""

    def __init__(self, first: bytes, second: bytes, headers: dict[str, str]) -> None:
        self.asked: list[str | None] = []
        host, cut = self, next(at for at in range(len(first)) if first[at] != second[at]) + 2

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.headers["Range"])
                data = first if len(host.asked) == 1 else second
                at = int(self.headers["Range"][6:-1]) if self.headers["Range"] else 0
                self.send_response(206 if at else 200)
                told = {"ETag": '"one"' if data is first else '"two"', "Content-Length": str(len(data) - at)}
                if at:
                    told = {**told, "Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}", **headers}
                for name, value in told.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[at:cut] if data is first else data[at:])

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/x.mp4"


CLIP = clips.clip(81)
OLD = clips.tagged(CLIP, "A" * 8)


@pytest.mark.parametrize(
    ("new", "headers"),
    [
        (clips.tagged(CLIP, "B" * 8), {}),
        (clips.tagged(CLIP, "B" * 8), {"ETag": ""}),
        (clips.tagged(CLIP, "B" * 9), {"ETag": '"one"'}),
    ],
    ids=["another tag", "no tag", "another length in all"],
)
def test_two_halves_of_different_files_are_not_put_together(tmp_path, monkeypatch, new, headers):
    monkeypatch.setattr(DOWNLOAD, "PAUSE", 0.01)
    host = Host(OLD, new, headers)
    file = download(host.address, tmp_path / "x.mp4", allow_loopback=True, stop=threading.Event())
    host.server.shutdown()
    assert file.path.read_bytes() == new
    assert [part is None for part in host.asked] == [True, False, True]


def test_a_proxy_of_a_kind_that_needs_a_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setattr(DOWNLOAD, "PAUSE", 0.01)
    monkeypatch.setitem(sys.modules, "socks", None)
    address = "https://storage.example.com/x.mp4?sig=1"
    with pytest.raises(Unreachable) as told:
        download(address, tmp_path / "x.mp4", allow_loopback=False, stop=threading.Event())
    assert "the proxy of this machine is a SOCKS one, which needs PySocks (pip install pysocks)" in str(told.value)
