"""The parts of the cloud library one by one, without a network: journal, keys, redaction, waits, addresses, files."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from wan_remote import watch as watches
from wan_remote.clock import Clock
from wan_remote.container import why_no_video
from wan_remote.errors import Interrupted, InvalidRequest, KeyInvalid, KeyMissing, StorageError
from wan_remote.job import safe_id
from wan_remote.journal import Entry, Journal, fingerprint
from wan_remote.journal.tidying import KEPT
from wan_remote.keys import Keys
from wan_remote.providers import PROVIDERS
from wan_remote.redact import redact
from wan_remote.retry import LONGEST_PAUSE, pause
from wan_remote.secret import Secret
from wan_remote.states import State
from wan_remote.transport import Answer, refuse_address
from wan_remote.watch import Watch

NAME = fingerprint("gmi", "m", {"prompt": "p", "seed": 1}, "a", "b")


class StoppedClock(Clock):
    def __init__(self, now: float = 1e9) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


def entry(**changes: object) -> Entry:
    made = Entry(
        fingerprint=NAME, provider="gmi", model="m", scope="s", parameters={"prompt": "p"}, first="a", last="b", seed=1
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(folder=tmp_path / "jobs", clock=StoppedClock())
    made.prepare()
    return made


# -- journal ---------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(journal):
    written = journal.write(entry(state=State.SUBMITTED, id="x-1", submitted_at=12.5))
    assert journal.read(NAME) == written
    assert journal.read("0" * 40) is None
    path = journal.folder / f"{NAME}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert journal.update(written, state=State.DONE).state == State.DONE
    assert json.loads(path.read_text())["state"] == State.DONE


def test_a_write_that_dies_leaves_the_entry_before_it(journal, monkeypatch):
    journal.write(entry(state=State.SUBMITTED, id="x-1"))

    def die(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        journal.write(entry(state=State.DONE, id="x-1"))
    monkeypatch.undo()
    assert journal.read(NAME).state == State.SUBMITTED


def test_a_full_disk_is_told_and_leaves_no_scrap(journal, monkeypatch):
    journal.write(entry(state=State.SUBMITTED, id="x-1"))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device.*make room"):
        journal.write(entry(state=State.DONE))
    monkeypatch.undo()
    assert journal.read(NAME).state == State.SUBMITTED
    assert not list(journal.folder.glob("*.tmp*"))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"v": 0}', b'{"v": 1, "state": 7}', b"\xff\xfe", b"[" * 100000],
    ids=["empty", "cut", "list", "a version that never was", "wrong types", "no text", "deep"],
)
def test_a_damaged_entry_is_set_aside_once(journal, caplog, text):
    path = journal.folder / f"{NAME}.json"
    path.write_bytes(text)
    assert journal.read(NAME) is None
    assert not path.exists()
    assert [aside.read_bytes() for aside in journal.folder.glob("*.damaged-*")] == [text]
    assert "set aside" in caplog.text
    path.write_bytes(text)
    assert journal.read(NAME) is None
    assert len(list(journal.folder.glob("*.damaged-*"))) == 2
    assert journal.find(entry()) == journal.read(NAME) == entry(recovered=True)


def test_an_entry_under_another_name_is_not_believed(journal):
    journal.write(entry(state=State.FETCHED))
    other = "1" * 40
    os.rename(journal.folder / f"{NAME}.json", journal.folder / f"{other}.json")
    assert journal.read(other) is None


def test_old_jobs_are_forgotten_unless_they_are_open(journal):
    now = journal.clock.time()
    names = {}
    for index, (state, ended) in enumerate(
        [
            (State.FETCHED, now - KEPT - 1),
            (State.FETCHED, now - KEPT + 10),
            (State.SUBMITTED, now - KEPT - 1),
            (State.INTENT, 0.0),
        ]
    ):
        name = str(index) * 40
        journal.write(entry(fingerprint=name, state=state, ended_at=ended))
        os.utime(journal.folder / f"{name}.json", (ended or 1.0, ended or 1.0))
        names[name] = index
    journal.prune(journal.folder)
    assert sorted(names[e.fingerprint] for e in journal.entries()) == [1, 2, 3]


def test_a_folder_that_is_a_file_stops_everything(tmp_path):
    (tmp_path / "jobs").write_text("x")
    with pytest.raises(StorageError, match="can't be written.*nothing was sent"):
        Journal(folder=tmp_path / "jobs").prepare()


def test_one_run_of_the_same_inputs_at_a_time(journal):
    order = []

    class Told(Watch):
        def stage(self, text, done=None, total=None):
            order.append(text)

    async def one(name, seconds):
        async with journal.alone(NAME, Told()):
            order.append(f"{name} in")
            await asyncio.sleep(seconds)
            order.append(f"{name} out")

    async def both():
        first = asyncio.create_task(one("first", 0.3))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, one("second", 0.0))

    asyncio.run(both())
    waiting = "another run of the same inputs is under way; waiting for it"
    assert order == ["first in", waiting, "first out", "second in", "second out"]


def test_waiting_for_another_run_can_be_stopped(journal):
    class Pressed(Watch):
        def interrupted(self):
            return True

    async def both():
        async with journal.alone(NAME, Watch()):
            async with journal.alone(NAME, Pressed()):
                raise AssertionError("two at once")

    with pytest.raises(Interrupted):
        asyncio.run(both())


def test_fingerprints_differ_in_every_input():
    given = ["gmi", "m", {"prompt": "p", "seed": 1}, "a", "b", 1]
    seen = {fingerprint(*given)}  # type: ignore[arg-type]
    for index, other in enumerate(["w", "n", {"prompt": "p", "seed": 2}, "c", "d", 2]):
        seen.add(fingerprint(*[*given[:index], other, *given[index + 1 :]]))  # type: ignore[arg-type]
    assert len(seen) == 7
    assert fingerprint("gmi", "m", {"seed": 1, "prompt": "p"}, "a", "b") == NAME  # the order does not count


# -- keys and what is shown ------------------------------------------------------------------------------------


def test_a_key_does_not_show_itself():
    secret = Secret("sk-abcdef-123456", "a variable")
    assert "abcdef" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.scope == Secret("sk-abcdef-123456", "elsewhere").scope != Secret("sk-other", "x").scope
    assert len(secret.scope) == 8
    with pytest.raises(TypeError):
        __import__("copy").copy(secret)


def test_keys_come_from_the_environment_then_from_the_file(tmp_path):
    stored = Keys(folder=tmp_path, environ={})
    with pytest.raises(KeyMissing, match=r"GMI_API_KEY, or .*keys\.json"):
        stored.resolve("gmi")
    path = stored.save("gmi", "  from-the-file\n")
    stored.save("wavespeed", "another")
    assert path.stat().st_mode & 0o777 == 0o600
    assert stored.resolve("gmi").reveal() == "from-the-file"
    assert stored.resolve("gmi").source == str(path)
    both = Keys(folder=tmp_path, environ={"GMI_API_KEY": "from-the-environment"})
    assert both.resolve("gmi").reveal() == "from-the-environment"
    assert both.resolve("wavespeed").reveal() == "another"
    for text in ("{", "[1]", '{"gmi": 5}'):
        path.write_text(text)
        with pytest.raises(KeyInvalid):
            stored.resolve("gmi")


@pytest.mark.parametrize(("provider", "value"), [("gmi", " "), ("nowhere", "k"), ("gmi", "")])
def test_no_key_is_not_stored(tmp_path, provider, value):
    with pytest.raises(KeyInvalid):
        Keys(folder=tmp_path, environ={}).save(provider, value)
    with pytest.raises(KeyInvalid):
        Keys(environ={}).save("gmi", "good")


def test_an_organisation_is_checked():
    headers = PROVIDERS["gmi"].headers
    assert headers({}) == {}
    assert headers({"GMI_ORG_ID": " org-1 "}) == {"X-Organization-ID": "org-1"}
    with pytest.raises(KeyInvalid, match="GMI_ORG_ID"):
        headers({"GMI_ORG_ID": "a\nb"})


def test_text_from_outside_is_cleaned():
    key = "sk-abcdef-123456"
    text = redact(
        f"no {key}\n at https://u:p@h.com/a/b.mp4?X-Sig=1#f Bearer abcdefgh12345678 {'QUJD' * 60} \x1b[31mred\x00",
        (key, ""),
    )
    assert text == "no *** at https://h.com/a/b.mp4 Bearer *** ... [31mred"
    assert len(redact("word " * 1000)) == 500
    assert redact("word " * 1000).endswith("...")
    assert redact("x" * 119) == "x" * 119


# -- waits -----------------------------------------------------------------------------------------------------


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


def test_pauses_double_up_to_a_limit_with_jitter():
    for attempt in range(12):
        longest = min(LONGEST_PAUSE, 0.5 * 2**attempt)
        drawn = [pause(attempt) for _ in range(200)]
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest
        assert len(set(drawn)) > 100


def test_answers_that_are_no_json_are_none():
    for body in (b"", b"<html>", b"[" * 100_000, None, b"\xff"):
        assert Answer(status=200, headers={}, body=body).json() is None
    assert Answer(status=200, headers={}, body=b'{"a": 1}').json() == {"a": 1}


def test_a_stop_is_seen_while_work_hangs_and_work_that_must_end_ends():
    done = []

    class Later(Watch):
        def __init__(self):
            self.looks = 0

        def interrupted(self):
            self.looks += 1
            return self.looks > 1

    def hang(stop):
        done.append(stop.wait(5))

    async def stopped():
        await watches.in_thread(hang, Later(), "said")

    with pytest.raises(Interrupted, match="said"):
        asyncio.run(stopped())

    def work(stop):
        done.append(stop.wait(5))  # it is told, and waited for
        done.append("ended")

    async def cancelled():
        task = asyncio.create_task(watches.to_the_end(work, watches.Watch()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert done[-1] == "ended"
    assert True in done  # the hanging work was told


# -- addresses -------------------------------------------------------------------------------------------------

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


def test_ids_that_could_climb_are_none():
    assert safe_id("gm-0001.a:b_c") == "gm-0001.a:b_c"
    assert safe_id(12345) == "12345"
    for bad in ("", "..", "a/../b", "a/b", "a b", "-a", ".a", "a" * 201, None, True, 1.5, ["a"], "a\n"):
        assert safe_id(bad) is None, bad


# -- files -----------------------------------------------------------------------------------------------------


def box(kind: bytes, size: int = 16) -> bytes:
    return struct.pack(">I", size) + kind + bytes(size - 8)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "its frames can't be decoded"),
        (b"<html>no</html>", "its frames can't be decoded"),
        (box(b"ftyp"), "it lacks moov, mdat"),
        (box(b"ftyp") + box(b"moov"), "it lacks mdat"),
        (box(b"ftyp") + box(b"moov")[:-1], "it ends in the middle of a box"),
        (box(b"ftyp") + b"\0\0", "it ends in the middle of a box"),
        (box(b"ftyp") + struct.pack(">I", 4) + b"moov", "it ends in the middle of a box"),
        (box(b"moov") + box(b"ftyp"), "it has no video stream"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 999), "it ends in the middle of a box"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I", 0) + b"mdat", "it has no video stream"),
        (box(b"ftyp") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 16), "it has no video stream"),
    ],
)
def test_files_that_are_no_whole_video_are_told(tmp_path, data, why):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert why_no_video(path) == why


# -- records ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("gmi", {"request_id": "a", "status": "queued"}, ("queued", "", None)),
        ("gmi", {"request_id": "a", "status": "dispatched"}, ("queued", "", None)),
        ("gmi", {"request_id": "a", "status": "success", "outcome": {"video_url": "U"}}, ("succeeded", "U", None)),
        (
            "gmi",
            {"request_id": "a", "status": "success", "outcome": {"media_urls": [{"url": "V.jpg"}, {"url": "W.mp4?s"}]}},
            ("succeeded", "W.mp4?s", None),
        ),
        (
            "gmi",
            {"request_id": "a", "status": "success", "outcome": {"thumbnail_image_url": "T"}},
            ("succeeded", "", None),
        ),
        ("gmi", {"request_id": "a", "status": "new word"}, ("processing", "", None)),
        (
            "wavespeed",
            {"id": "a", "status": "created", "created_at": "2026-11-20T08:00:00.5Z"},
            ("queued", "", 1795161600.5),
        ),
        ("wavespeed", {"id": "a", "status": "completed", "outputs": ["U"]}, ("succeeded", "U", None)),
        ("wavespeed", {"id": "a", "status": "completed", "outputs": [{"url": "U"}]}, ("succeeded", "U", None)),
        ("wavespeed", {"id": "a", "status": "timeout"}, ("failed", "", None)),
        ("wavespeed", {"id": "a", "status": "cancelled"}, ("cancelled", "", None)),
        ("wavespeed", {"id": "a", "status": 3, "outputs": "x", "timings": []}, ("processing", "", None)),
    ],
)  # fmt: skip
def test_records_of_both_clouds_are_read(name, record, expected):
    job = PROVIDERS[name].job(record)
    assert (job.status.value, job.url, job.created) == expected


def test_base_addresses_are_checked():
    from wan_remote import endpoints

    def base_url(name: str, environ: dict[str, str]) -> str:
        cloud = PROVIDERS[name]
        return endpoints.base_url(cloud.base_variable, cloud.base, environ)

    assert base_url("gmi", {}) == "https://console.gmicloud.ai/api/v1/ie/requestqueue"
    assert base_url("wavespeed", {"WAVESPEED_BASE_URL": "https://x.com/v3/"}) == "https://x.com/v3"
    assert base_url("gmi", {"GMI_BASE_URL": "http://127.0.0.1:8000"}) == "http://127.0.0.1:8000"
    for bad in (
        "http://x.com",
        "x.com",
        "https://u:p@x.com",
        "https://x.com/?a=1",
        "https://x.com/#a",
        "https://[x",
        "file:///a",
    ):
        with pytest.raises(InvalidRequest, match="GMI_BASE_URL"):
            base_url("gmi", {"GMI_BASE_URL": bad})


def test_a_key_is_stored_from_the_keyboard_and_never_printed(tmp_path, monkeypatch, capsys):
    import io

    from wan_remote.cli import main

    for variable in ("GMI_API_KEY", "WAVESPEED_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-typed-123456\n"))
    assert main(["keys", "gmi", "--state", str(tmp_path)]) == 0
    assert main(["keys", "--state", str(tmp_path)]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["keys", "wavespeed", "--state", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert f"gmi: {tmp_path / 'keys.json'}" in shown.out
    assert "wavespeed: not set" in shown.out
    assert "sk-typed" not in shown.out + shown.err
    assert json.loads((tmp_path / "keys.json").read_text()) == {"gmi": "sk-typed-123456"}


def test_images_that_can_not_be_read_are_told_in_one_line(tmp_path, capsys):
    from wan_remote.cli import main

    (tmp_path / "page.png").write_text("<html>")
    for name in ("none.png", "page.png"):
        arguments = [
            "gmi",
            "generate",
            "--first",
            str(tmp_path / name),
            "--last",
            str(tmp_path / name),
            "--prompt",
            "p",
        ]
        assert main([*arguments, "--state", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1
