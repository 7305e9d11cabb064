"""One test's surroundings: the stand-in, empty folders, a clock that costs nothing, the five checks of every fault."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import wan_remote
from tests.wan_remote.clocks import FakeClock, FastClock, Impatient
from tests.wan_remote.fault_case import DOWN, GMI, LOST, Case
from tests.wan_remote.fault_ids import faults_of
from tests.wan_remote.fault_table import Row
from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY, StandIn
from wan_remote.cli import main
from wan_remote.images import Frame, encode
from wan_remote.keys import Keys
from wan_remote.providers.gmi import GMI as GMICloud
from wan_remote.transport import Api
from wan_remote.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
DOWNLOAD, RUN = sys.modules["wan_remote.transport.download"], sys.modules["wan_remote.run"]
LONGEST = 30.0  # real seconds of one run; then it hangs
BASE64_RUN = re.compile(r"[A-Za-z0-9+/]{200,}")
NEVER = (GMI_KEY, WAVESPEED_KEY, "X-Goog-Signature", "X-Amz-Signature")
FOREIGN = ("requests", "urllib3", "http", "ssl", "socket")


@functools.cache
def image(seed: int, height: int = 36, width: int = 64) -> np.ndarray:
    """A small frame: two colours, told apart by ``seed``. uint8 [H, W, 3]"""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2] = (seed * 37 % 256, seed * 91 % 256, 120)
    frame[:, width // 2 :] = (30, seed * 53 % 256, seed * 17 % 256)
    return frame


@functools.lru_cache(64)
def _encoded(pixels: bytes, shape: tuple[int, ...], budget: int, name: str) -> Frame:
    return encode(np.frombuffer(pixels, np.uint8).reshape(shape), budget, name)


class TestWatch(Watch):
    __test__ = False

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.lines: list[str] = []

    def interrupted(self) -> bool:
        return self.stopped.is_set()

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        self.lines.append(text)


@dataclass
class Outcome:
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0  # of real time
    after_stop: float = 0.0
    lines: list[str] = field(default_factory=list)  # stages and log lines

    @property
    def end(self) -> str:
        return "result" if self.error is None else type(self.error).__name__

    @property
    def text(self) -> str:
        """Everything a person could get to see of it."""
        shown = [*self.lines, repr(self.value), str(self.error), repr(self.error)]
        if self.error is not None:
            shown += traceback.format_exception(self.error)
            shown += [str(error) + repr(error.args) for error in chain(self.error)]
        return "\n".join(shown)


@dataclass
class Told:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def chain(error: BaseException | None) -> Iterable[BaseException]:
    """The error and all it came from, shown or not."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        one = queue.pop()
        if one is not None and one not in seen:
            seen.append(one)
            queue += [one.__cause__, one.__context__]
    return seen


@dataclass
class World:
    cloud: StandIn
    tmp: Path
    monkeypatch: pytest.MonkeyPatch
    caplog: pytest.LogCaptureFixture
    rows: list[Row]
    test: str = ""  # its id
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.state, self.output = self.tmp / "state", self.tmp / "output"
        self.caplog.set_level(logging.DEBUG)
        self.environ(self.monkeypatch)
        self.monkeypatch.setattr(DOWNLOAD, "PAUSE", 0.01)  # real seconds between attempts
        self.monkeypatch.setattr(RUN, "encode", lambda pixels, *rest: _encoded(pixels.tobytes(), pixels.shape, *rest))

    def environ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GMI_ORG_ID", "NETRC"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        for name, value in self.cloud.environment.items():
            monkeypatch.setenv(name, value)

    def close(self) -> None:
        violations = self.cloud.view()["violations"]
        assert violations == [], violations

    # requests

    def gmi(self, **changes: Any) -> wan_remote.GMIRequest:
        frames = {"first": image(1, 720, 1280), "last": image(2, 720, 1280)}  # of its size: nothing to resize
        given = {**frames, "prompt": "a paper crane unfolds", "seed": 7, **changes}
        return wan_remote.GMIRequest(**given)

    def wavespeed(self, **changes: Any) -> wan_remote.WaveSpeedRequest:
        frames = {"first": image(1, 480, 832), "last": image(2, 480, 832)}
        given = {**frames, "prompt": "ice melts into a stream", "seed": 7, **changes}
        return wan_remote.WaveSpeedRequest(**given)

    def request(self, provider: str, **changes: Any) -> Any:
        return (self.gmi if provider == GMI else self.wavespeed)(**changes)

    # time

    def real_time(self, scale: float) -> None:
        """From now on a second takes ``scale`` real seconds."""
        self.clock = FastClock(scale)
        self.cloud.settings(speed=1.0 / scale)

    def poll_soon(self) -> None:
        """The first look at a job comes at once, so that a test in real time need not wait for it."""
        self.monkeypatch.setattr(GMICloud, "first_poll", 0.2)

    def advance(self, seconds: float) -> None:
        """Time passes, here and at the clouds."""
        self.clock.pause(seconds)
        self.offset = getattr(self, "offset", 0.0) + seconds
        self.cloud.settings(offset=self.offset)

    # running

    @property
    def keys(self) -> Keys:
        return Keys(folder=self.tmp / "keys")

    def save_key(self, provider: str, key: str) -> Path:
        self.monkeypatch.delenv({GMI: "GMI_API_KEY"}.get(provider, "WAVESPEED_API_KEY"), raising=False)
        path = self.tmp / "keys" / "keys.json"
        if key.isprintable():
            return self.keys.save(provider, key)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({provider: key}))
        path.chmod(0o600)
        return path

    async def start(self, request: Any, watch: Watch | None = None, **more: Any) -> Any:
        folders = wan_remote.Folders(state=more.pop("state", self.state), output=more.pop("output", self.output))
        watch = watch or TestWatch()
        return await wan_remote.run(request, folders=folders, watch=watch, clock=self.clock, keys=self.keys, **more)

    def run(self, request: Any, **more: Any) -> Outcome:
        return self.run_made(lambda: request, **more)

    def run_made(
        self,
        make: Callable[[], Any],
        plan: list[Any] | None = None,
        stop_when: Callable[[], object] | None = None,
        cancel_when: Callable[[], object] | None = None,
        **more: Any,
    ) -> Outcome:
        """Run one request, made here, so that a refusal while making it counts; optionally stop or cancel it."""
        watch, outcome, logged = TestWatch(), Outcome(), len(self.caplog.records)
        moment = [0.0]

        async def main() -> Any:
            request = make()
            if plan is not None:
                self.cloud.plan(request.provider, *plan)
            task = asyncio.ensure_future(self.start(request, watch, **more))
            loop = asyncio.get_running_loop()
            condition = stop_when or cancel_when
            over = threading.Event()

            def look() -> None:
                while condition and not over.is_set():
                    if condition():
                        moment[0] = time.monotonic()
                        if stop_when:
                            watch.stopped.set()
                        else:
                            loop.call_soon_threadsafe(task.cancel)
                        return
                    time.sleep(0.01)

            looking = threading.Thread(target=look)
            looking.start()
            try:
                return await asyncio.wait_for(task, LONGEST)
            finally:
                over.set()
                outcome.after_stop = time.monotonic() - moment[0] if moment[0] else 0.0
                await loop.run_in_executor(None, looking.join)

        start = time.monotonic()
        try:
            outcome.value = asyncio.run(main())
        except (Exception, asyncio.CancelledError, KeyboardInterrupt) as error:
            outcome.error = error
        outcome.seconds = time.monotonic() - start
        new = [record for record in self.caplog.records[logged:] if not record.name.startswith("urllib3")]
        outcome.lines = watch.lines + [record.getMessage() for record in new]
        return outcome

    def fetch(self, provider: str, request_id: str, **more: Any) -> Outcome:
        """Collect a job by its id."""
        folders = wan_remote.Folders(state=more.pop("state", self.state), output=more.pop("output", self.output))
        outcome, start = Outcome(), time.monotonic()
        collecting = wan_remote.fetch(provider, request_id, folders=folders, clock=self.clock, keys=self.keys, **more)
        try:
            outcome.value = asyncio.run(collecting)
        except Exception as error:
            outcome.error = error
        outcome.seconds = time.monotonic() - start
        return outcome

    def run_all(self, requests: list[Any], at_once: int = 1000) -> list[Outcome]:
        async def one(request: Any, gate: asyncio.Semaphore) -> Outcome:
            watch, outcome = TestWatch(), Outcome()
            async with gate:
                start = time.monotonic()
                try:
                    outcome.value = await self.start(request, watch)
                except Exception as error:
                    outcome.error = error
                outcome.seconds = time.monotonic() - start
            outcome.lines = watch.lines
            return outcome

        async def main() -> list[Outcome]:
            gate = asyncio.Semaphore(at_once)
            return await asyncio.gather(*(one(request, gate) for request in requests))

        return asyncio.run(main())

    def lose(self, provider: str) -> None:
        """A submission is taken, its answer lost, and the list is down."""
        self.cloud.faults(f"{provider}.submit", LOST)
        self.cloud.faults(f"{provider}.list", DOWN)
        assert self.run(self.request(provider)).end == "SubmissionUnknown"
        self.cloud.faults(f"{provider}.list")

    def shorten_reads(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        """Every call of an API is given up after so many seconds of silence."""
        real = Api.call
        monkeypatch.setattr(Api, "call", lambda api, call, **named: real(api, replace(call, read=seconds), **named))

    def shrink_budget(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        monkeypatch.setattr(GMICloud, "image_bytes", size)

    # the journal

    def entries(self, state: Path | None = None) -> list[Path]:
        """The journal's files, oldest first."""
        paths = [path for path in (state or self.state).rglob("*.json") if '"state"' in path.read_text("utf-8")]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns)

    def states(self) -> list[str]:
        try:
            return [str(json.loads(path.read_text("utf-8"))["state"]) for path in self.entries()]
        except (OSError, ValueError):
            return []  # it is being written

    def age_journal(self, seconds: float) -> None:
        """As if each entry had been written that much earlier."""
        for path in self.entries():
            row = json.loads(path.read_text("utf-8"))
            for name in ("intent_at", "submitted_at", "ended_at"):
                row[name] = max(0.0, row[name] - seconds)
            path.write_text(json.dumps(row))

    # the command line

    def generate(self, provider: str, *more: str) -> list[str]:
        """The arguments that make a clip."""
        paths = []
        for number, name in enumerate(("first", "last"), 1):
            path = self.tmp / f"{name}.png"
            Image.fromarray(image(number)).save(path)
            paths += [f"--{name}", str(path)]
        words = ["--prompt", "a paper crane unfolds", "--seed", "7"]
        places = ["--state", str(self.state), "--output", str(self.output)]
        return [provider, "generate", *paths, *words, *places, *more]

    def command(self, provider: str, *more: str) -> Told:
        return self.cli(*self.generate(provider, *more), plain=True)

    def cli(
        self,
        *arguments: str,
        plain: bool = False,
        state: Path | None = None,
        output: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> Told:
        """The command line in this process, where waits are short; ``plain`` adds no folders."""
        given = list(arguments)
        if not plain:
            given += ["--state", str(state or self.state)]
            if "fetch" in given:
                given += ["--output", str(output or self.output)]
        out, err = io.StringIO(), io.StringIO()
        with self.monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr("wan_remote.session.Clock", Impatient)
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            try:
                status = main(given)
            except SystemExit as error:
                status = int(error.code or 0)
        return Told(status, out.getvalue(), err.getvalue())

    def popen(self, provider: str, *more: str) -> subprocess.Popen[str]:
        """The command line in a process of its own, to be killed."""
        command = [sys.executable, "-m", "wan_remote", *self.generate(provider, *more)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.tmp, env=environment, stdout=pipe, stderr=pipe, text=True)

    # checks

    def assert_no_key(self, *texts: str, ignore: tuple[Path, ...] = (), folder: Path | None = None) -> None:
        for text in texts:
            for word in NEVER:
                assert word not in text, f"{word} in {text[:2000]}"
            assert not BASE64_RUN.search(text), BASE64_RUN.search(text)[0][:80]
        for path in (folder or self.tmp).rglob("*"):
            if path.is_file() and path not in ignore and path.name != "keys.json":
                data = path.read_bytes()
                for word in NEVER:
                    assert word.encode() not in data, f"{word} in {path}"
                if path.suffix != ".mp4" and path.suffix != ".part":
                    assert not BASE64_RUN.search(data.decode("latin-1")), path

    def assert_no_leak(self, *outcomes: Outcome, ignore: tuple[Path, ...] = (), all_logs: bool = False) -> None:
        # the HTTP library's own debug lines have a test of their own
        kept = [record for record in self.caplog.records if all_logs or not record.name.startswith("urllib3")]
        logs = "\n".join(f"{record.getMessage()} {record.exc_info}" for record in kept)
        self.assert_no_key(logs, *[outcome.text for outcome in outcomes], ignore=ignore)
        for outcome in outcomes:
            for error in chain(outcome.error):
                module = type(error).__module__.split(".")[0]
                assert module not in FOREIGN, f"{type(error)} hangs on {outcome.end}"

    def check(
        self,
        stage: str,
        name: str,
        outcome: Outcome,
        *,
        end: str,
        posts: int | tuple[int, int],
        accepted: int | tuple[int, int] = 1,
        journal: str | tuple[str, ...] | None = "",
        says: tuple[str, ...] = (),
        within: float = 6.0,
    ) -> None:
        """The five: submissions, end, journal, nothing leaked, not too slow. Adds the row to the table."""
        row = self.record(stage, name, outcome.end)
        seen_posts, seen_accepted, state = row.posts, row.accepted, row.journal
        print(f"{name}: {seen_posts} submissions, {seen_accepted} accepted, {outcome.end}, journal {state or '-'}")
        print(outcome.error)
        assert outcome.end in end.split("|"), outcome.text
        assert_within(seen_posts, posts, "submissions")
        assert_within(seen_accepted, accepted, "jobs made")
        if journal == "":
            journal = "fetched" if outcome.end == "result" else None
        if journal is not None:
            assert state in ((journal,) if isinstance(journal, str) else journal)
        if outcome.error is not None:
            message = str(outcome.error)
            assert len(message.splitlines()) <= 1, message
            for word in says:
                assert word in message, (word, message)
        if outcome.end == "result":
            self.assert_right_file(outcome)
        self.assert_no_leak(outcome)
        assert outcome.seconds < within

    def record(self, stage: str, name: str, end: str) -> Row:
        """Add a row to the table: how things stand now."""
        states = self.states()
        state = states[-1] if states else ""
        row = Row(stage, name, self.cloud.posts(), self.cloud.accepted(), end, state, faults_of(self.test))
        self.rows.append(row)
        return row

    def assert_right_file(self, outcome: Outcome) -> None:
        jobs = {job["id"]: job for job in self.cloud.jobs()}
        data = Path(outcome.value.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == jobs[outcome.value.request_id]["sha256"] == outcome.value.sha256

    def play(self, stage: str, case: Case) -> None:
        """One row of the fault table, and what the same inputs do when they are queued again."""
        cloud = self.cloud
        cloud.control(faults=case.faults, set=case.settings, keys=case.keys)
        if case.plan:
            cloud.plan(case.provider, *case.plan, **case.plan_more)
        request = self.request(case.provider, **case.request)
        outcome = self.run(request, wait_seconds=case.wait_seconds)
        self.check(
            stage,
            case.id,
            outcome,
            end=case.end,
            posts=case.posts,
            accepted=case.accepted,
            journal=case.journal,
            says=case.says,
            within=case.within,
        )
        for route in case.never:
            assert cloud.records(route) == [], route
        for route, times in case.asked.items():
            assert_within(len(cloud.records(route)), times, route)
        if case.slept:
            assert case.slept[0] <= self.clock.elapsed <= case.slept[1], self.clock.elapsed
        if case.again:
            self.play_again(case, request)

    def play_again(self, case: Case, request: Any) -> None:
        again = case.again
        assert again is not None
        if (
            not all(fault.get("times") == 0 for script in case.faults.values() for fault in script)
            or again.end == "result"
        ):
            self.cloud.control(faults={route: [] for route in case.faults})
        self.cloud.control(set=again.repair)
        self.advance(again.after)
        outcome = self.run(request, wait_seconds=case.wait_seconds)
        assert outcome.end == again.end, outcome.text
        assert (self.cloud.posts(), self.cloud.accepted()) == (again.posts, again.accepted)
        self.assert_no_leak(outcome)


def assert_within(value: int, bounds: int | tuple[int, int], what: str) -> None:
    low, high = (bounds, bounds) if isinstance(bounds, int) else bounds
    assert low <= value <= high, f"{value} {what}, not {bounds}"
