"""Many jobs at once in bad weather. Each ends with its file or a typed error; none is paid twice; none is lost.

``REMOTE_SOAK`` sets the number of jobs (32; ``make soak``: 400), ``REMOTE_SOAK_SEED`` the weather.
"""

from __future__ import annotations

import collections
import logging
import os
import random
import tempfile
import time
from pathlib import Path

from tests.wan_remote.fault_case import GMI, WAVESPEED, answer, retry_after
from tests.wan_remote.world import Outcome, World, image

JOBS = int(os.environ.get("REMOTE_SOAK", "32"))
SEED = int(os.environ.get("REMOTE_SOAK_SEED", "1"))
AT_ONCE = 32


def weather(provider: str) -> dict[str, list[tuple[float, dict[str, object]]]]:
    """Route -> share of its requests and what they meet."""
    polled = {GMI: "gmi.status", WAVESPEED: "wavespeed.result"}[provider]
    identity = {GMI: "request_id", WAVESPEED: "data.id"}[provider]
    return {
        f"{provider}.submit": [
            (0.03, retry_after(provider, 429, "2")),
            (0.02, answer(provider, 429, "slow down")),
            (0.02, retry_after(provider, 503, "1")),
            (0.02, answer(provider, 500, "upstream", accept=True)),
            (0.02, answer(provider, 502, "upstream")),
            (0.02, {"kind": "reset", "when": "after", "accept": True}),
            (0.02, {"kind": "reset", "when": "half"}),
            (0.02, {"kind": "edit", "drop": [identity]}),
            (0.01, {"kind": "answer", "text": "<html>", "accept": True}),
            (0.01, answer(provider, 400, "prompt refused")),
            (0.01, answer(provider, 402, "no credit")),
        ],
        f"{provider}.list": [(0.1, {"kind": "answer", "status": 500, "text": "down"})],
        polled: [
            (0.05, {"kind": "answer", "status": 500, "text": "oops"}),
            (0.03, {"kind": "reset", "when": "before"}),
            (0.03, {"kind": "reset"}),
            (0.03, retry_after(provider, 429, "3")),
            (0.02, {"kind": "cut", "keep": 30}),
            (0.02, answer(provider, 404, "not found")),
            (0.005, answer(provider, 401, "invalid key")),
        ],
    }


CHAOS = {
    **weather(GMI),
    **weather(WAVESPEED),
    "wavespeed.ticket": [(0.05, {"kind": "answer", "status": 500, "text": "oops"})],
    "wavespeed.binary": [(0.05, {"kind": "answer", "status": 500, "text": "oops"})],
    "put": [(0.05, {"kind": "reset"})],
    "file": [
        (0.06, {"kind": "cut", "keep": 3000}),
        (0.03, {"kind": "cut", "keep": 3000, "length": False}),
        (0.03, {"kind": "answer", "status": 403}),
        (0.03, {"kind": "body", "text": "<html>later</html>"}),
        (0.02, {"kind": "body", "cut_moov": True}),
        (0.02, {"kind": "reset"}),
        (0.02, {"kind": "no_range"}),
    ],
}
REFUSALS = {"Rejected": 400, "NoCredit": 402}
DEFINITE = {*REFUSALS, "JobFailed", "Moderated", "JobCancelled"}


def test_soak(world: World) -> None:
    if os.access("/dev/shm", os.W_OK):  # in memory: thousands of flushes to a slow disk are not what is tested here
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            world.state, world.output = Path(folder) / "state", Path(folder) / "output"
            soak(world)
            world.assert_no_key(folder=Path(folder))
    else:
        soak(world)


def soak(world: World) -> None:
    rng = random.Random(SEED)
    cloud = world.cloud
    cloud.settings(frames=9)
    world.real_time(0.03)
    world.caplog.set_level(logging.INFO, "urllib3")
    fates = {GMI: [["queued", "success"]] * 8, WAVESPEED: [["created", "completed"]] * 8}
    for provider, done in ((GMI, "success"), (WAVESPEED, "completed")):
        fates[provider] += [[done], ["warming_up", done], ["processing", {"status": "failed", "error": "crashed"}]]
    cloud.control(
        plans={name: [{"steps": rng.choice(fates[name])} for _ in range(JOBS)] for name in fates},
        chaos={"seed": SEED, "routes": CHAOS},
    )
    wide = {"first": image(1, 720, 1280), "last": image(2, 720, 1280)}  # of the right size: nothing to resize
    high = {"first": image(1, 832, 480), "last": image(2, 832, 480), "size": "480*832"}
    requests = [
        world.wavespeed(prompt=f"job {n}", **high) if rng.random() < 0.75 else world.gmi(prompt=f"job {n}", **wide)
        for n in range(JOBS)
    ]
    start = time.monotonic()
    ends: dict[int, list[str]] = collections.defaultdict(list)
    finals: dict[int, Outcome] = {}

    def turn(numbers: list[int]) -> None:
        for number, outcome in zip(
            numbers, world.run_all([requests[n] for n in numbers], at_once=AT_ONCE), strict=True
        ):
            ends[number].append(outcome.end)
            finals[number] = outcome

    turn(list(range(JOBS)))
    first_turn = time.monotonic() - start
    cloud.control(chaos={"seed": SEED, "routes": {}})
    world.advance(600)
    turn([n for n in range(JOBS) if ends[n][-1] not in {"result", *DEFINITE}])
    took = time.monotonic() - start

    by_prompt = collections.Counter(job["body"]["prompt"] for job in cloud.jobs())
    told = collections.Counter(end[-1] for end in ends.values())
    print(f"{JOBS} jobs in {took:.1f} s ({first_turn:.1f} s in bad weather): {dict(told)}")
    print("first ends:", dict(collections.Counter(end[0] for end in ends.values())))
    twice = [(prompt, ends[int(prompt.split()[1])]) for prompt, made in by_prompt.items() if made > 1]
    assert twice == []
    known = {job["id"]: job for job in cloud.jobs()}
    for number, outcome in finals.items():
        made = by_prompt.get(f"job {number}", 0)
        if outcome.end == "result":
            job = known[outcome.value.request_id]
            assert job["body"]["prompt"] == f"job {number}"
            assert outcome.value.sha256 == job["sha256"]
        elif outcome.end in REFUSALS:
            assert made == 0, (number, ends[number])
        else:
            assert outcome.end in ("SubmissionUnknown", "JobFailed"), (number, ends[number], outcome.text)
    assert_owed_to_the_weather(world, finals)
    assert cloud.view()["violations"] == []
    world.assert_no_leak(*finals.values())


def assert_owed_to_the_weather(world: World, finals: dict[int, Outcome]) -> None:
    """Whatever has no result met its reason at the cloud; how many those are is the dice's affair.

    A submission that was refused for now may end as unknown too: the list shows another's lost job, or can't be read.
    """
    met: dict[str, set[int | str]] = collections.defaultdict(set)  # by prompt; the status, or the kind of fault
    torn = 0  # submissions of which the cloud read half: their prompt is not known
    for record in world.cloud.records():
        if record["route"].endswith(".submit") and record["fault"]:
            body = record.get("json")
            torn += body is None
            if body is not None:
                met[body.get("payload", body)["prompt"]].add(record["told"] or record["fault"])
    failed = {job["body"]["prompt"] for job in world.cloud.jobs() if not isinstance(job["last"], str)}
    for number, outcome in finals.items():
        prompt = f"job {number}"
        if outcome.end in REFUSALS:
            assert REFUSALS[outcome.end] in met[prompt], (prompt, outcome.text)
        elif outcome.end == "JobFailed":
            assert prompt in failed, (prompt, outcome.text)
        elif outcome.end == "SubmissionUnknown":
            torn -= not met[prompt]
    assert torn >= 0
