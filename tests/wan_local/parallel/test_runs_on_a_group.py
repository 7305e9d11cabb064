"""Runs that share one group of GPUs: each is its own, uses every GPU, and gives back what it took when it is over."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wan_local.parallel import split_cases as cases
from wan_local.approximations import Approximations
from wan_local.denoiser import Denoiser, approximated_run, velocity_of
from wan_local.errors import Cancelled
from wan_local.model.nag import Nag
from wan_local.parallel import rank_model
from wan_local.parallel.degrees import Degrees
from wan_local.parallel.group_model import GroupTransformer, Setup
from wan_local.parallel.plan import moved
from wan_local.parallel.rank_model import Rank
from wan_local.ranks import Limits, Pool, RankError, RankGroup, RankInfo
from wan_local.sampling import Cond, Velocity, denoise, make_sampler, model_velocity
from wan_local.shapes import Grid
from wan_local.weights import load_transformer

pytestmark = pytest.mark.long

GIVEN = cases.inputs(cases.GRIDS["45 tokens"])
NOISE = GIVEN["noise"]


def conds(scale: float = 1.0) -> list[Cond]:
    return [replace(cond, text=cond.text * scale) for cond in cases.conds(GIVEN)]


def alone(folder: Path, scale: float = 1.0, guidance: float = cases.GUIDANCE) -> torch.Tensor:
    model = load_transformer(folder / "model.safetensors")
    with torch.no_grad():
        return model_velocity(model, conds(scale), guidance)(NOISE, 900.0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def look(model: GroupTransformer, guidance: float = cases.GUIDANCE) -> torch.Tensor:
    return model_velocity(model, conds(), guidance)(NOISE, 900.0)


def test_without_guidance_every_gpu_has_its_share(folder: Path, setup: Setup, pool: Pool) -> None:
    """The bytes are those of two GPUs that share the heads; GPUs that repeat each other's work exchange none."""
    model = GroupTransformer(setup, pool)
    assert error(look(model), alone(folder)) <= 1e-5
    before, pids = model.statistics(), model.start().pids
    assert error(look(model, 1.0), alone(folder, guidance=1.0)) <= 1e-5
    sent = [after["sent"] - told["sent"] for after, told in zip(model.statistics(), before, strict=True)]
    frames, height, width = cases.GRIDS["45 tokens"]
    grid = Grid(frames=4 * frames - 3, height=8 * height, width=8 * width)
    planned = moved(cases.CONFIG, grid, Degrees(ulysses=2), itemsize=4, guided=False).all
    assert sent == [planned, planned]
    assert model.start().pids == pids
    assert error(look(model), alone(folder)) <= 1e-5


def test_what_is_said_about_the_split_is_true_for_the_guidance(setup: Setup, pool: Pool, caplog) -> None:
    assert "cfg 2 x ulysses 1 x ring 1: prompt and negative prompt at once; at guidance 1 cfg 1 x ulysses 2" in (
        GroupTransformer(setup, pool).why
    )
    assert GroupTransformer(setup, pool, guidance=1.0).why.startswith("cfg 1 x ulysses 2 x ring 1: 2 of 4 heads a GPU")
    assert "guidance" not in GroupTransformer(setup, pool, guidance=5.0).why
    both = GroupTransformer(replace(setup, cfg=2), pool, guidance=1.0)
    assert "half of the GPUs repeat the work of the other half, since guidance is 1" in both.why
    with caplog.at_level(logging.WARNING, logger="wan_local.parallel"):
        look(GroupTransformer(setup, pool), 1.0)
        assert not caplog.messages
        look(both, 1.0)
    assert "half of the GPUs repeat" in caplog.text


def test_two_runs_at_once_keep_their_own_prompts(folder: Path, setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool)
    first, second = model_velocity(model, conds(1.0), 4.0), model_velocity(model, conds(-2.0), 4.0)
    for _ in range(2):
        assert error(first(NOISE, 900.0), alone(folder, 1.0, 4.0)) <= 1e-5
        assert error(second(NOISE, 900.0), alone(folder, -2.0, 4.0)) <= 1e-5


def test_runs_of_two_threads_keep_their_own_prompts(folder: Path, setup: Setup, pool: Pool) -> None:
    found: dict[float, torch.Tensor] = {}

    def run(scale: float) -> None:
        velocity = model_velocity(GroupTransformer(setup, pool), conds(scale), 4.0)
        found[scale] = [velocity(NOISE, 900.0) for _ in range(5)][-1]

    GroupTransformer(setup, pool).start()
    threads = [threading.Thread(target=run, args=(scale,)) for scale in (1.0, -2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {scale: error(value, alone(folder, scale, 4.0)) <= 1e-5 for scale, value in found.items()} == {
        1.0: True, -2.0: True,
    }  # fmt: skip


def test_a_run_that_the_ranks_have_forgotten_begins_again(folder: Path, setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool)
    first = model_velocity(model, conds(1.0), 4.0)
    others = [model_velocity(model, conds(-2.0), 4.0) for _ in range(rank_model.RUNS)]
    assert error(first(NOISE, 900.0), alone(folder, 1.0, 4.0)) <= 1e-5
    assert error(others[-1](NOISE, 900.0), alone(folder, -2.0, 4.0)) <= 1e-5


def test_ranks_forget_a_run_that_nobody_holds(setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool)
    velocity: Velocity | None = model_velocity(model, conds(), 4.0)
    assert velocity is not None
    velocity(NOISE, 900.0)
    number, group = velocity.__self__.number, model.start()  # type: ignore[attr-defined]
    assert group.call_first("velocity", NOISE, 900.0, number) is not None
    velocity = None
    assert group.call_first("velocity", NOISE, 900.0, number) is None
    assert group.alive


def test_nobody_waits_at_the_end_of_a_stopped_run(setup: Setup, pool: Pool) -> None:
    asked: list[int] = []
    model = GroupTransformer(setup, pool, stop=lambda: len(asked) > 0)
    velocity = model_velocity(model, conds(), 4.0)
    group, called = model.start(), []
    call = group.call
    group.call = lambda *args, **options: called.append(args[0]) or call(*args, **options)  # type: ignore[method-assign]
    asked.append(1)
    with pytest.raises(Cancelled):
        velocity(NOISE, 900.0)
    del velocity
    del group.call
    assert "end" not in called
    assert group.finish_stopped_call()


def test_ranks_give_their_memory_back_at_the_end_of_a_run(
    setup: Setup, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that does on a GPU is ``ranks/test_rank.py``'s; also after a stop, when the run isn't taken leave of."""
    rested, rest = [], RankGroup.free_memory
    monkeypatch.setattr(RankGroup, "free_memory", lambda group: rested.append(group) or rest(group))
    asked: list[int] = []
    model = GroupTransformer(setup, pool, stop=lambda: len(asked) > 0)
    velocity: Velocity | None = model_velocity(model, conds(), 4.0)
    assert velocity is not None
    velocity(NOISE, 900.0)
    assert not rested
    velocity = None
    assert len(rested) == 1
    velocity = model_velocity(model, conds(), 4.0)
    asked.append(1)
    with pytest.raises(Cancelled):
        velocity(NOISE, 900.0)
    velocity = None
    assert len(rested) == 2


def test_a_rank_forgets_a_run_at_its_end(folder: Path) -> None:
    rank = Rank(RankInfo(rank=0, world=1, device="cpu", backend="gloo", timeout=60.0))
    rank.load(str(folder / "model.safetensors"), dtype="float32")
    fields = [{"condition": cond.condition, "text": cond.text, "image": cond.image} for cond in conds()]
    rank.begin(fields, 4.0, 7)
    assert rank.velocity(NOISE, 900.0, 7) is not None
    rank.end(7)
    assert rank.velocity(NOISE, 900.0, 7) is None


def test_a_run_that_is_let_go_late_does_not_end_its_successor(folder: Path, setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool, keep=False)
    first: Velocity | None = model_velocity(model, conds(1.0), 4.0)
    second = model_velocity(model, conds(-2.0), 4.0)
    assert first is not None
    first = None
    assert error(second(NOISE, 900.0), alone(folder, -2.0, 4.0)) <= 1e-5


def test_gpus_that_are_not_kept_are_given_back_and_room_is_made_before_every_run(
    setup: Setup, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    start = RankGroup.start
    monkeypatch.setattr(RankGroup, "start", lambda *given: told.append("start") or start(*given))
    hooks: dict[str, Any] = {"before_run": lambda: told.append("room"), "when_up": lambda: told.append("up")}
    model = GroupTransformer(setup, pool, keep=False, **hooks)
    velocity: Velocity | None = model_velocity(model, conds(), 4.0)
    assert velocity is not None
    velocity(NOISE, 900.0)
    pids = model.start().pids
    look(GroupTransformer(setup, pool, **hooks))
    assert told == ["room", "start", "up", "room", "up"]
    last = model_velocity(model, conds(), 4.0)
    del velocity, last
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_step_may_take_what_the_caller_says(setup: Setup) -> None:
    pool = Pool()
    model = GroupTransformer(replace(setup, gpus=1), pool, limits=Limits(call=0.001, first=0.001, slack=1.0))
    with pytest.raises(RankError, match="WAN_FLF2V_STEP_LIMIT"):
        look(model)
    pool.close()


@pytest.mark.parametrize("split", [{"cfg": 2}, {"ulysses": 2}])
def test_two_gpus_skip_the_steps_that_one_skips(folder: Path, setup: Setup, pool: Pool, split: dict[str, int]) -> None:
    """Also where the latents decide, and where uncond is asked for in some steps only."""
    one = load_transformer(folder / "model.safetensors")
    both = GroupTransformer(replace(setup, **split), pool)
    for options in (
        Approximations(skip="easycache", skip_threshold=0.5),
        Approximations(guidance_reuse=2, guidance_lowest=0.5, cfg_zero=True),
    ):
        found = []
        for model in (one, both):
            sampler, denoisers = make_sampler("unipc", 12, 16.0), [Denoiser(transformer=model)]
            run = approximated_run(options, sampler, denoisers)
            velocity = velocity_of(denoisers, conds(), cases.GUIDANCE, approximated=run)
            with torch.no_grad():
                latents = denoise(velocity, NOISE, sampler)
            assert run is not None
            assert run.forwards < run.all_forwards
            found.append((latents, run.told()))
        assert found[0][1] == found[1][1]
        assert error(found[1][0], found[0][0]) <= 1e-4


def test_nag_reaches_every_gpu(folder: Path, setup: Setup, pool: Pool) -> None:
    nag = [replace(conds()[0], nag=Nag(text=conds()[1].text, scale=11.0))]
    with torch.no_grad():
        expected = model_velocity(load_transformer(folder / "model.safetensors"), nag, 1.0)(NOISE, 900.0)
    assert error(expected, alone(folder, guidance=1.0)) > 1e-3
    assert error(model_velocity(GroupTransformer(setup, pool), nag, 1.0)(NOISE, 900.0), expected) <= 1e-5
