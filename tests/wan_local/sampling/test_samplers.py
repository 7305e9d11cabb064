"""Samplers against the official solvers' own output, against diffusers, and against what theory says of them."""

from __future__ import annotations

import math
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from wan_local.errors import InputError, NumericError
from wan_local.sampling import SAMPLERS, denoise, guided_velocity, initial_noise, make_sampler
from wan_local.shapes import Grid

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "official_solvers.npz")
OFFICIAL = ("unipc", "dpm++")
LENGTHS = (1, 2, 4, 10, 20, 30, 40, 50, 67, 68, 100)
SHIFTS = (16, 5, 3, 1)


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("shift", SHIFTS)
def test_schedule_is_the_official_one(name, steps, shift):
    sampler = make_sampler(name, steps, float(shift))
    sigmas, timesteps = (GOLDEN[f"{name}/{steps}/{shift}/{what}"] for what in ("sigmas", "timesteps"))
    assert np.abs(np.array(sampler.sigmas) - sigmas).max() <= 1e-7
    assert [int(t) for t in sampler.timesteps] == timesteps.tolist()


def test_unipc_schedule_of_fifty_steps_as_published():
    sampler = make_sampler("unipc", 50, 16.0)
    assert [round(s, 5) for s in sampler.sigmas[:3]] == [0.99994, 0.99866, 0.99734]
    assert [round(s, 5) for s in sampler.sigmas[-4:]] == [0.505, 0.39975, 0.24596, 0.0]
    assert list(sampler.timesteps[:5]) == [999, 998, 997, 995, 994]
    assert list(sampler.timesteps[-3:]) == [504, 399, 245]


@pytest.mark.parametrize("name", OFFICIAL)
def test_guided_trajectory_equals_the_official_solver(name):
    noise = torch.from_numpy(GOLDEN["noise"])
    n = torch.arange(noise.numel(), dtype=torch.float32).view(noise.shape)
    velocity = guided_velocity(
        lambda x, t: field(x, t, torch.sin(0.37 * n)), lambda x, t: field(x, t, torch.cos(0.21 * n)), 5.5
    )
    sampler, latents, worst = make_sampler(name, 20, 16.0), noise, 0.0
    for i, timestep in enumerate(sampler.timesteps):
        latents = sampler.step(latents, velocity(latents, timestep), i)
        expected = torch.from_numpy(GOLDEN[f"{name}/trajectory"][i])
        worst = max(worst, ((latents[0] - expected).abs().max() / expected.abs().max()).item())
    print(f"{name}: 20 guided steps against the official solver, relative error {worst:.2e}")
    assert worst <= 1e-4
    assert torch.equal(denoise(velocity, noise, make_sampler(name, 20, 16.0)), latents)


def field(x: torch.Tensor, timestep: float, prompt: torch.Tensor) -> torch.Tensor:
    s = timestep / 1000
    return 0.6 * x - (1.2 - s) * prompt + 0.4 * torch.sin(2 * x + 3 * s)


def test_euler_is_the_formula_and_diffusers():
    theirs = FlowMatchEulerDiscreteScheduler(shift=16.0)
    sampler = make_sampler("euler", 12, 16.0)
    theirs.set_timesteps(sigmas=[1 - i / 12 for i in range(12)])
    assert np.allclose(sampler.sigmas, theirs.sigmas.numpy(), atol=1e-6)
    assert np.allclose(sampler.timesteps, theirs.timesteps.numpy(), atol=1e-3)
    generator = torch.Generator().manual_seed(1)
    x = y = torch.randn(1, 16, 2, 4, 4, generator=generator)
    for i in range(12):
        v = torch.randn(x.shape, generator=generator)
        expected = x - (sampler.sigmas[i] - sampler.sigmas[i + 1]) * v
        x, y = sampler.step(x, v, i), theirs.step(v, theirs.timesteps[i], y).prev_sample
        assert torch.equal(x, expected)
        assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.skipif(
    tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 41), reason="its UniPC told the official timesteps then"
)
def test_diffusers_unipc_is_another_schedule():
    """Why the golden tensors exist: the solver of the same name in diffusers tells the model other timesteps."""
    theirs = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=16.0, prediction_type="flow_prediction")
    theirs.set_timesteps(50)
    ours = [int(t) for t in make_sampler("unipc", 50, 16.0).timesteps]
    differing = sum(a != int(b) for a, b in zip(ours, theirs.timesteps, strict=True))
    print(f"diffusers' UniPC: {differing} of 50 timesteps differ from the official ones")
    assert differing >= 10


@pytest.mark.parametrize(("name", "steps"), [("unipc", 67), ("unipc", 68), ("unipc", 100), ("dpm++", 100)])
def test_repeated_whole_timesteps_do_not_lose_a_step(name, steps):
    sampler = make_sampler(name, steps, 16.0)
    official = GOLDEN[f"{name}/{steps}/16/timesteps"].tolist()
    assert len(set(official)) < steps
    assert [int(t) for t in sampler.timesteps] == official
    seen = []
    out = denoise(lambda x, t: torch.zeros_like(x), torch.ones(1, 1, 1, 2, 2), sampler, seen.append)
    assert [p.done for p in seen] == list(range(1, steps + 1))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_last_step_ends_at_the_clean_estimate(name):
    """At sigma 0 the half log-SNR is infinite: only a step of first order is finite there, and it gives x0."""
    x0s = []
    out = denoise(
        lambda x, t: torch.sin(x) + t / 1000, torch.randn(1, 2, 2, 4, 4), make_sampler(name, 8, 3.0),
        lambda p: x0s.append(p.x0),
    )  # fmt: skip
    if name == "unipc":  # its last start is corrected, so the clean estimate is the one before correction
        assert torch.isfinite(out).all()
    assert torch.allclose(out, x0s[-1], atol=1e-5)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_straight_flow_is_solved_exactly(name, steps):
    """If the velocity is noise - x0 of one clip, any number of steps must arrive at that clip."""
    clip, noise = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    sampler = make_sampler(name, steps, 16.0)
    start = (1 - sampler.sigmas[0]) * clip + sampler.sigmas[0] * noise
    assert torch.allclose(denoise(lambda x, t: noise - clip, start, sampler), clip, atol=2e-4)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm++", 2), ("unipc", 2)])
def test_error_falls_with_the_stated_order(name, order):
    """On a smooth flow, with exact timesteps, the error of N steps goes as N to the minus order."""
    errors = [flow_error(name, steps) for steps in (160, 320)]
    measured = math.log2(errors[0] / errors[1])
    print(f"{name}: order {measured:.2f}")
    assert measured > order - 0.35


def flow_error(name: str, steps: int) -> float:
    """Error in double precision for data N(1, 0.5^2), whose velocity and path are known in closed form."""
    mean, spread = 1.0, 0.5

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        variance = ((1 - sigma) * spread) ** 2 + sigma**2
        score_part = x - (1 - sigma) * mean
        x0 = mean + (1 - sigma) * spread**2 / variance * score_part
        noise = sigma / variance * score_part
        return noise - x0

    sampler = make_sampler(name, steps, 1.0)
    z = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64).view(1, 1, 1, 1, 3)
    scale = lambda sigma: math.sqrt(((1 - sigma) * spread) ** 2 + sigma**2)  # noqa: E731
    x = (1 - sampler.sigmas[0]) * mean + scale(sampler.sigmas[0]) * z
    for i in range(steps):
        x = sampler.step(x, velocity(x, sampler.sigmas[i]), i)
    return (x - (mean + spread * z)).abs().max().item()


def test_guidance_one_asks_once():
    asked = []

    def model(which):
        return lambda x, t: asked.append(which) or torch.zeros_like(x)

    velocity = guided_velocity(model("positive"), model("negative"), 1.0)
    denoise(velocity, torch.zeros(1, 1, 1, 2, 2), make_sampler("euler", 4, 16.0))
    assert asked == ["positive"] * 4


def test_guidance_formula():
    x = torch.zeros(1, 1, 1, 2, 2)
    velocity = guided_velocity(lambda x, t: x + 3, lambda x, t: x + 1, 5.5)
    assert torch.equal(velocity(x, 500.0), torch.full_like(x, 1 + 5.5 * 2))
    with pytest.raises(InputError, match="guidance=nan"):
        guided_velocity(lambda x, t: x, lambda x, t: x, math.nan)


def test_stopping_in_progress_ends_the_run_at_that_step():
    class Stop(Exception):
        pass

    steps = []

    def on_progress(progress):
        steps.append(progress.done)
        if progress.done == 3:
            raise Stop

    sampler = make_sampler("unipc", 10, 16.0)
    with pytest.raises(Stop):
        denoise(lambda x, t: x, torch.ones(1, 1, 1, 2, 2), sampler, on_progress)
    assert steps == [1, 2, 3]
    # The same sampler starts over cleanly.
    fresh = denoise(lambda x, t: x, torch.ones(1, 1, 1, 2, 2), make_sampler("unipc", 10, 16.0))
    assert torch.equal(denoise(lambda x, t: x, torch.ones(1, 1, 1, 2, 2), sampler), fresh)


def test_steps_out_of_order_are_refused():
    sampler = make_sampler("unipc", 10, 16.0)
    with pytest.raises(ValueError, match="step 2 asked for, but step 0 comes next"):
        sampler.step(torch.zeros(1), torch.zeros(1), 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_names_the_step(bad):
    sampler = make_sampler("euler", 5, 16.0)

    def velocity(x, t):
        return torch.full_like(x, bad) if t == sampler.timesteps[2] else x

    with pytest.raises(NumericError, match="step 3 of 5: the model gave NaN or infinity"):
        denoise(velocity, torch.ones(1, 1, 1, 2, 2), sampler)


@given(st.sampled_from(list(SAMPLERS)), st.integers(1, 300), st.floats(0.05, 100))
def test_any_schedule_falls_from_noise_to_zero(name, steps, shift):
    sigmas = make_sampler(name, steps, shift).sigmas
    assert len(sigmas) == steps + 1
    assert 0 < sigmas[0] <= 1
    assert sigmas[-1] == 0
    assert all(a > b for a, b in zip(sigmas, sigmas[1:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unipc", 0, 16.0), "steps=0 can't be used"),
        (("unipc", 10, 0.0), "shift=0.0 can't be used"),
        (("unipc", 10, math.inf), "shift=inf can't be used"),
        (("heun", 10, 16.0), "sampler='heun' is not known; use unipc, dpm\\+\\+, euler"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_sampler(*arguments)


def test_noise_follows_the_seed_alone():
    grid = Grid(frames=9, height=32, width=48)
    noise = initial_noise(grid, 16, 7)
    assert noise.shape == (1, 16, 3, 4, 6)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, initial_noise(grid, 16, 7))
    assert not torch.equal(noise, initial_noise(grid, 16, 8))
    expected = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(noise, expected)
    with pytest.raises(InputError, match="seed=-1 can't be used"):
        initial_noise(grid, 16, -1)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_velocity_of_half_precision_is_raised_before_anything_is_made_of_it(name, dtype):
    """The same numbers in float32 must give the same latents and previews, to the last bit."""
    seen = {torch.float32: [], dtype: []}

    def run(kind):
        def velocity(latents, timestep):
            return (latents * 0.9 + timestep / 1000.0).to(dtype).to(kind)

        noise = torch.randn(1, 2, 2, 4, 4, generator=torch.Generator().manual_seed(3))
        return denoise(velocity, noise, make_sampler(name, 8, 5.0), lambda progress: seen[kind].append(progress.x0))

    low, full = run(dtype), run(torch.float32)
    assert low.dtype == torch.float32
    assert torch.equal(low, full)
    previews = list(zip(seen[dtype], seen[torch.float32], strict=True))
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in previews)
