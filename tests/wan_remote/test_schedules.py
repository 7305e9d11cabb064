"""Random schedules of faults: lost and late answers, odd lists, kills, new keys, two processes, time that passes.

Two things hold at the end of each, whatever came before: no inputs were paid for twice, and every job that was paid
for is collected by its id. What nobody could tell is left out: a cloud that refuses a submission, makes its job all
the same and has a list that hides it. ``REMOTE_SCHEDULES`` sets how many are played (12), ``REMOTE_SCHEDULE`` the
first of their seeds. A seed is in the name of its test: ``REMOTE_SCHEDULE=41 REMOTE_SCHEDULES=1`` plays 41 again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import wan_remote
from tests.wan_remote.clocks import FakeClock
from tests.wan_remote.fault_case import BOTH, DONE, GMI, POLL, WAITING, answer, retry_after
from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY
from tests.wan_remote.stand_in.odd import HIDING, STYLES
from tests.wan_remote.world import RUN, World
from wan_remote import watch as watches
from wan_remote.errors import RemoteError
from wan_remote.providers import PROVIDERS
from wan_remote.transport import Api

COUNT = int(os.environ.get("REMOTE_SCHEDULES", "12"))
FIRST = int(os.environ.get("REMOTE_SCHEDULE", "1"))
LONGEST = 60.0  # real seconds of one process
KEYS = {GMI: GMI_KEY, "wavespeed": WAVESPEED_KEY}
VARIABLE = {GMI: "GMI_API_KEY", "wavespeed": "WAVESPEED_API_KEY"}
PROMPTS = ("  a crane & a fox \n", "cafe\u0301 at night", "a long way " * 12, "纸鹤飞向窗外")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, to be killed at any point")


def submissions(provider: str, rng: random.Random) -> list[dict[str, Any]]:
    """What the next submissions meet."""
    lost: list[dict[str, Any]] = [
        {"kind": "reset", "when": "after", "accept": True},
        {"kind": "reset", "when": "after"},
        {"kind": "reset", "when": "half"},
        answer(provider, 500, "upstream", accept=True),
        answer(provider, 502, "upstream"),
        answer(provider, 503, "upstream", accept=True),
        answer(provider, 408, "too slow", accept=True),
        {"kind": "answer", "text": "<html>ok</html>", "accept": True},
        {"kind": "answer", "json": {"code": 200, "error": "try later"}},
        {"kind": "edit", "drop": [{GMI: "request_id"}.get(provider, "data.id")]},
    ]
    refused = [
        answer(provider, 429, "too many concurrent tasks"),
        retry_after(provider, 429, rng.choice(["2", "\u00b2", "soon"])),
        retry_after(provider, 429, "1", accept=True),
        retry_after(provider, 503, "1", accept=True),
        answer(provider, 409, "already there", accept=True),
        answer(provider, 400, "image cache failed", accept=True),
        answer(provider, 404, "no route", accept=True),
        answer(provider, 402, "no credit"),
    ]
    return [rng.choice(rng.choice([lost, refused, [{"kind": "pass"}]])) for _ in range(rng.randint(1, 3))]


def _refuses(fault: dict[str, Any]) -> bool:
    return fault.get("accept", False) and fault.get("status", 200) in (429, 503, 409, 400, 404)


def elsewhere(provider: str, rng: random.Random) -> dict[str, list[dict[str, Any]]]:
    """What lists, polls and downloads meet."""
    down = {"kind": "answer", "status": 500, "text": "down", "times": rng.randint(1, 4)}
    polls = [
        down,
        {"kind": "reset"},
        {"kind": "answer"},
        {"kind": "edit", "drop": [{GMI: "status"}.get(provider, "data.status")]},
        answer(provider, 401, "invalid key"),
        answer(provider, 404, "not found", times=rng.choice([2, 0])),
        answer(provider, 530, "error 1033"),
    ]
    files = [{"kind": "cut", "keep": 3000}, {"kind": "answer", "status": 403}, {"kind": "reset"}]
    return {
        f"{provider}.list": [down] if rng.random() < 0.3 else [],
        POLL[provider]: [rng.choice(polls)] if rng.random() < 0.5 else [],
        "file": [rng.choice(files)] if rng.random() < 0.3 else [],
    }


@dataclass
class Child:
    """A process of its own that runs one thing; it may be told to kill itself at its n-th step."""

    pid: int
    told: Path

    def end(self) -> dict[str, Any]:
        last = time.monotonic() + LONGEST
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > last:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return {"end": "hangs"}
            time.sleep(0.005)
        return json.loads(self.told.read_text()) if self.told.exists() else {"end": "killed"}


def kill_at(step: int) -> None:
    """Die before or after the step-th time that something is put on disk or sent."""
    left = [step]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            for after in (False, True):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if not after:
                    made = real(*given, **named)
            return made

        return call

    os.replace = counted(os.replace)  # type: ignore[assignment]
    Api.call = counted(Api.call)  # type: ignore[method-assign]


@dataclass
class Play:
    world: World
    folder: Path
    provider: str
    rng: random.Random
    offset: float = 0.0
    key: str = ""
    number: int = 0

    def start(self, work: Callable[[wan_remote.Folders, FakeClock], Coroutine[Any, Any, Any]], step: int = 0) -> Child:
        self.number += 1
        told = self.folder / f"told-{self.number}"
        pid = os.fork()
        if pid:
            return Child(pid, told)
        try:  # nothing of the parent's must run on from here
            watches._workers = watches._Workers()
            os.environ[VARIABLE[self.provider]] = self.key
            clock = FakeClock()
            clock.pause(self.offset)
            folders = wan_remote.Folders(state=self.folder / "state", output=self.folder / "output")
            if step:
                kill_at(step)
            try:
                made = asyncio.run(work(folders, clock))
                row = {"end": "result", "id": made.request_id, "sha256": made.sha256, "path": str(made.path)}
            except RemoteError as error:
                row = {"end": type(error).__name__, "text": str(error)}
            except BaseException as error:  # noqa: BLE001
                row = {"end": f"BUG {error!r}"}
            told.write_text(json.dumps(row))
        finally:
            os._exit(0)

    def run(self, request: Any, step: int = 0) -> Child:
        return self.start(
            lambda folders, clock: wan_remote.run(
                request, folders=folders, clock=clock, keys=self.world.keys, wait_seconds=300.0
            ),
            step,
        )

    def fetch(self, request_id: str) -> Child:
        return self.start(
            lambda folders, clock: wan_remote.fetch(
                self.provider, request_id, folders=folders, clock=clock, keys=self.world.keys, wait_seconds=300.0
            )
        )

    def weather(self) -> None:
        cloud, rng = self.world.cloud, self.rng
        style = rng.choice(("", *STYLES))
        cloud.settings(list_style=style, room=rng.choice([0, 0, 1]))
        script = submissions(self.provider, rng)
        if style in HIDING:  # a cloud that refuses, makes the job all the same and hides it can't be seen through
            script = [fault for fault in script if not (fault["kind"] == "answer" and _refuses(fault))]
        cloud.control(faults={**elsewhere(self.provider, rng), f"{self.provider}.submit": script})
        plans = [[DONE[self.provider]], [WAITING[self.provider]] * 4 + [DONE[self.provider]], ["failed"], ["deleted"]]
        weights = [6, 6, 1, 1 if self.provider != GMI else 0]
        cloud.control(plans={self.provider: [{"steps": rng.choices(plans, weights)[0]} for _ in range(4)]})

    def clear(self) -> None:
        self.world.cloud.settings(list_style="", room=0)
        routes = (f"{self.provider}.submit", f"{self.provider}.list", POLL[self.provider], "file")
        self.world.cloud.control(faults={route: [] for route in routes}, plans={self.provider: []})

    def pass_time(self, seconds: float) -> None:
        self.offset += seconds
        self.world.cloud.settings(offset=self.offset)


@pytest.fixture
def play(world: World, request: pytest.FixtureRequest) -> Iterator[Play]:
    rng = random.Random(request.node.callspec.params["seed"])
    provider = rng.choice(BOTH)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Play(world, Path(folder), provider, rng, key=KEYS[provider])


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_schedule(play: Play, seed: int) -> None:
    rng, cloud, provider = play.rng, play.world.cloud, play.provider
    other = f"{KEYS[provider]}-of-the-same-account"
    cloud.control(keys={provider: [KEYS[provider], other]})
    requests = {
        prompt: play.world.request(provider, prompt=prompt, seed=rng.choice([7, -1]), take=rng.choice([1, 2]))
        for prompt in rng.sample(PROMPTS, 2)
    }
    for request in requests.values():  # here, so that no child has to do it again
        for name in ("first", "last"):
            RUN.encode(getattr(request, name), PROVIDERS[provider].image_bytes, f"{name} image")
    log: list[Any] = []
    for _ in range(rng.randint(2, 5)):
        play.weather()
        if rng.random() < 0.2:
            play.key = rng.choice([KEYS[provider], other])
        chosen = rng.sample(sorted(requests), rng.choice([1, 1, 2]))
        if rng.random() < 0.3:  # the same inputs in two processes
            chosen.append(chosen[0])
        steps = [rng.randint(1, 24) if rng.random() < 0.4 else 0 for _ in chosen]
        log += [(prompt.strip()[:12], step) for prompt, step in zip(chosen, steps, strict=True)]
        children = [play.run(requests[prompt], step) for prompt, step in zip(chosen, steps, strict=True)]
        log += [child.end() for child in children]
        if rng.random() < 0.3 and (jobs := cloud.jobs()):
            log.append(play.fetch(rng.choice(jobs)["id"]).end())
        play.pass_time(rng.choice([0.0, 30.0, 300.0, 2000.0]))
    play.clear()
    log += ["good weather", *[play.run(request).end() for request in requests.values()]]

    print(f"seed {seed}, {provider}:", *log, sep="\n  ")
    jobs = {job["id"]: job for job in cloud.jobs()}
    ends = {name: job["last"] for name, job in jobs.items()}
    for prompt in requests:
        paid = [name for name, job in jobs.items() if job["body"]["prompt"] == prompt and ends[name] != "failed"]
        assert len(paid) <= 1, f"seed {seed}: {prompt!r} was paid for as {paid}"
    assert not [row for row in log if isinstance(row, dict) and (row["end"] == "hangs" or "BUG" in row["end"])]
    for name in [name for name in jobs if ends[name] == DONE[provider]]:
        found = play.fetch(name).end()
        assert (found["end"], found.get("sha256")) == ("result", jobs[name]["sha256"]), (seed, name, found)
