"""A run under approximations: what it asks for, what it says, and that nothing of it is left for the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from wan_local.approximations import Approximations
from wan_local.approximations.run import ApproximatedRun
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser, approximated_run, before_step, needs_negative, pair_of, velocity_of
from wan_local.errors import Cancelled
from wan_local.notices import listening
from wan_local.progress import Progress
from wan_local.sampling import Cond, denoise, make_sampler

CONFIG = TransformerConfig(dim=128, ffn_dim=256, num_heads=1, num_layers=1)
EXPERT = TransformerConfig(dim=128, ffn_dim=256, num_heads=1, num_layers=1, image_dim=0)
CONDS = [Cond(condition=torch.zeros(1, 20, 1, 2, 2), text=torch.full((1, 1, 8), fill)) for fill in (1.0, -1.0)]
NOISE = torch.randn(1, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Model:
    """A smooth velocity that depends on the latents, the time and the prompt; notes what it was asked."""

    def __init__(self, config: TransformerConfig = CONFIG, pull: float = 0.4) -> None:
        self.config, self.pull = config, pull
        self.asked: list[float] = []
        self.options: list[dict[str, object]] = []

    def __call__(
        self, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, /, **options: object
    ) -> Tensor:
        self.asked.append(float(text[0, 0, 0]))
        self.options.append(options)
        time = timestep.view(-1, 1, 1, 1, 1) / 1000
        return torch.sin(self.pull * latents[:, :16] + text[0, 0, 0] + time) * (1 + time)


def go(
    options: Approximations,
    denoisers: Sequence[Denoiser],
    *,
    guidance: float = 3.0,
    steps: int = 50,
    shift: float = 16.0,
    heard: list[Progress] | None = None,
    stop_at: int = -1,
) -> tuple[Tensor, ApproximatedRun | None]:
    sampler = make_sampler("unipc", steps, shift)
    run = approximated_run(options, sampler, denoisers)

    def tell(progress: Progress) -> None:
        if heard is not None:
            heard.append(progress)
        if progress.done == stop_at:
            raise Cancelled("stopped")

    velocity = velocity_of(denoisers, CONDS, guidance, timesteps=sampler.timesteps, approximated=run)
    told = tell if run is None else run.telling(tell)
    return denoise(velocity, NOISE, sampler, told, partial(before_step, denoisers)), run


def one(**options: object) -> tuple[Tensor, ApproximatedRun, Model]:
    model = Model()
    latents, run = go(Approximations(**options), [Denoiser(transformer=model)])  # type: ignore[arg-type]
    assert run is not None
    return latents, run, model


def test_exact_is_the_run_without_any() -> None:
    model = Model()
    latents, run = go(Approximations(), [Denoiser(transformer=model)])
    assert run is None
    assert len(model.asked) == 100


@pytest.mark.parametrize("options", [{"skip": "list"}, {"skip": "magcache"}, {"skip": "easycache"}])
def test_a_skipped_step_asks_for_neither_side(options: dict[str, str]) -> None:
    latents, run, model = one(**options)
    assert run.skipped >= 15
    assert model.asked == [1.0, -1.0] * (50 - run.skipped)
    assert run.forwards == len(model.asked) == 100 - 2 * run.skipped
    exact, _ = go(Approximations(), [Denoiser(transformer=Model())])
    error = (latents - exact).norm() / exact.norm()
    assert 0 < error < 0.02
    assert run.told().endswith(f": {run.skipped} of 50 steps skipped, {run.forwards} of 100 forwards")


def test_progress_counts_what_was_skipped() -> None:
    heard: list[Progress] = []
    _, run = go(Approximations(skip="list"), [Denoiser(transformer=Model())], heard=heard)
    counts = [progress.skipped for progress in heard]
    assert counts[10] == 0
    assert counts[11:14] == [1, 1, 2]
    assert counts[-1] == 17
    assert [progress.done for progress in heard] == list(range(1, 51))


def test_a_stop_at_a_skipped_step_stops_and_leaves_nothing() -> None:
    denoisers = [Denoiser(transformer=Model())]
    options = Approximations(skip="easycache")
    first, _ = go(options, denoisers)
    for stop_at in (12, 13, 14):
        with pytest.raises(Cancelled):
            go(options, denoisers, stop_at=stop_at)
    go(options, denoisers, guidance=1.0)
    go(options, denoisers, steps=20, shift=5.0)
    assert torch.equal(go(options, denoisers)[0], first)


@pytest.mark.parametrize("skip", ["list", "magcache", "easycache"])
def test_an_expert_knows_nothing_of_the_other(skip: str) -> None:
    """Each is asked in its first two steps, and its guesses are made of its own answers."""
    high, low = Model(EXPERT, 0.4), Model(EXPERT, -0.2)
    exact, _ = go(Approximations(), pair_of(Model(EXPERT, 0.4), Model(EXPERT, -0.2), 0.9), shift=8.0)
    found, run = go(Approximations(skip=skip), pair_of(high, low, 0.9), shift=8.0)
    assert run is not None
    assert run.skipped > 5
    assert (found - exact).norm() / exact.norm() < 0.02
    starts = next(step for step, time in enumerate(run.sampler.timesteps) if time < 900)
    assert not run.plan & {starts, starts + 1}
    assert len(low.asked) < 2 * (50 - starts)


@pytest.mark.parametrize("options", [{"skip": "list"}, {"skip": "magcache"}, {"skip": "easycache"},
                                     {"guidance_reuse": 2}], ids=str)  # fmt: skip
def test_a_lora_that_counts_in_some_steps_is_not_guessed_over(options: dict[str, object]) -> None:
    """What it adds is no slope of the velocity: where it is switched, the model is another one."""

    class Loras:
        def strengths(self, step: int) -> tuple[float, ...]:
            return (1.0 if step < 24 else 0.0,)

        def before_step(self, step: int) -> None:
            model.pull = 0.4 - 0.6 * self.strengths(step)[0]

    def found(**options: object) -> tuple[Tensor, ApproximatedRun | None]:
        denoiser = Denoiser(transformer=model, loras=Loras())  # type: ignore[arg-type]
        return go(Approximations(**options), [denoiser], shift=5.0)  # type: ignore[arg-type]

    model = Model()
    exact, _ = found()
    latents, run = found(**options)
    assert run is not None
    assert run.forwards < 95
    assert not any(run.window[24:26])
    assert not run.plan & {24, 25}
    error = float((latents - exact).norm() / exact.norm())
    assert error < 0.01, error


def test_each_side_has_its_own_guess() -> None:
    """Guidance that ends while steps are skipped would otherwise go on in the guess."""
    exact, _, _ = one(guidance_lowest=0.8)
    skipped, run, model = one(skip="list", guidance_lowest=0.8)
    assert run.skipped > 10
    assert (skipped - exact).norm() / exact.norm() < 0.02
    assert model.asked.count(-1.0) < model.asked.count(1.0)


def test_guidance_in_an_interval_takes_one_forward_elsewhere() -> None:
    _, run, model = one(guidance_lowest=0.65, guidance_highest=0.99)
    inside = sum(0.65 <= sigma <= 0.99 for sigma in run.sampler.sigmas)
    assert len(model.asked) == run.forwards == 50 + inside
    assert run.told() == f"guidance_highest 0.99, guidance_lowest 0.65: {50 + inside} of 100 forwards"


def test_reuse_saves_in_the_middle_only() -> None:
    _, run, model = one(guidance_reuse=2)
    assert run.forwards == 83 - 1 == len(model.asked)
    assert model.asked[:20] == [1.0, -1.0] * 10
    assert model.asked[-10:] == [1.0, -1.0] * 5


def test_cfg_zero_rests_and_then_begins_with_no_memory() -> None:
    """At rest nothing moves, and UniPC's history of it would be taken for estimates of the clip."""
    heard: list[Progress] = []
    model = Model()
    found, run = go(Approximations(cfg_zero=True), [Denoiser(transformer=model)], heard=heard)
    assert run is not None
    assert (run.at_rest, len(model.asked)) == (2, 96)
    sampler = make_sampler("unipc", 50, 16.0)
    sampler._expected = 2  # begun at the third step, from the noise itself
    run = ApproximatedRun(Approximations(cfg_zero=True), sampler)
    velocity = velocity_of([Denoiser(transformer=Model())], CONDS, 3.0, approximated=run)
    latents = NOISE
    for step in range(2):
        assert velocity(latents, sampler.timesteps[step]).abs().max() == 0
    for step in range(2, 50):
        latents = sampler.step(latents, velocity(latents, sampler.timesteps[step]), step)
    assert torch.allclose(found, latents, atol=1e-5)


def test_nag_goes_to_those_at_guidance_1() -> None:
    high, low = Model(EXPERT), Model(EXPERT)
    options = Approximations(nag=11.0)
    denoisers = pair_of(high, low, 0.9, low_guidance=1.0)
    go(options, denoisers, shift=5.0)
    assert not any("nag" in each for each in high.options)
    nags = [each["nag"] for each in low.options]
    assert nags
    assert all(torch.equal(nag.text, CONDS[1].text) and nag.scale == 11.0 for nag in nags)  # type: ignore[attr-defined]
    assert set(low.asked) == {1.0}
    assert needs_negative(denoisers[1:], 1.0, options)
    assert not needs_negative(denoisers[1:], 1.0, Approximations(skip="list"))


@pytest.mark.parametrize(
    ("options", "guidance", "steps", "said"),
    [
        ({"skip": "list"}, 3.0, 4, "skip list finds no step of 4 that may be skipped, and is off"),
        ({"skip": "easycache"}, 3.0, 8, "skip easycache finds no step of 8"),
        ({"skip": "magcache", "skip_threshold": 1e-6}, 3.0, 50, "skip magcache finds no step of 50"),
        ({"guidance_reuse": 2}, 3.0, 6, "guidance_reuse finds no step of 6"),
        ({"guidance_reuse": 2}, 1.0, 50, "guidance_reuse would do nothing at guidance 1 and is off"),
        ({"cfg_zero": True, "guidance_lowest": 0.5}, 1.0, 50, "guidance_lowest and cfg_zero would do nothing"),
        ({"nag": 11.0}, 3.0, 50, "nag is for guidance 1 and is off at 3"),
        ({"skip": "list"}, 3.0, 50, ""),
        ({"nag": 11.0}, 1.0, 50, ""),
    ],
)
def test_what_would_do_nothing_is_off_and_said(
    options: dict[str, object], guidance: float, steps: int, said: str
) -> None:
    heard: list[str] = []
    with listening(heard.append):
        found, _ = go(
            Approximations(**options),  # type: ignore[arg-type]
            [Denoiser(transformer=Model())],
            guidance=guidance,
            steps=steps,
        )
    assert len(heard) == bool(said)
    if said:
        assert said in heard[0]
        exact, _ = go(Approximations(), [Denoiser(transformer=Model())], guidance=guidance, steps=steps)
        assert torch.allclose(found, exact, atol=1e-5)


def test_a_skipped_step_brings_no_model() -> None:
    brought: list[int] = []
    model = Model()
    sampler = make_sampler("unipc", 50, 16.0)
    denoisers = [Denoiser(transformer=model)]
    run = approximated_run(Approximations(skip="list"), sampler, denoisers)
    velocity = velocity_of(denoisers, CONDS, 3.0, lambda *_: brought.append(len(model.asked)), sampler.timesteps, run)
    denoise(velocity, NOISE, sampler)
    assert len(brought) == 33
