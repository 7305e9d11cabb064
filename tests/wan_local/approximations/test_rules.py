"""Which steps may be skipped, and what is best put in their place: on a distribution whose velocity is known exactly.

Eight normal distributions in a row; the velocity of their mixture has a closed form at every noise level. A toy ranks
rules. It sets no thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import pytest
import torch
from torch import Tensor

from wan_local.approximations.straight_line import StraightLine
from wan_local.approximations.window import window_of
from wan_local.sampling import denoise, make_sampler
from wan_local.sampling.samplers.base import Sampler

STEPS, SHIFT = 50, 16.0
MODES = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
SPREAD = 0.15
NOISE = torch.randn(64, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
EVERY_SECOND = range(11, 45, 2)

Guess = Callable[[Tensor, float], Tensor]


def exact(latents: Tensor, sigma: float) -> Tensor:
    """``noise - x0`` of the mixture, in expectation: ``[B, 1, 1, 8, 8]``."""
    x, away = latents.flatten(1).double(), 1 - sigma
    spread = (away * SPREAD) ** 2 + sigma**2
    distance = x[:, None] - away * MODES.double()  # [B, modes, 64]
    weight = torch.softmax(-distance.square().sum(-1) / (2 * spread), dim=1)
    x0 = MODES.double() + away * SPREAD**2 / spread * distance
    mean = (weight[..., None] * x0).sum(1)
    return ((x - mean) / max(sigma, 1e-6)).float().view(latents.shape)


def walk(skipped: Container[int], rule: str = "line", steps: int = STEPS) -> Tensor:
    """Latents of a run that does not ask in some steps."""
    sampler = make_sampler("unipc", steps, SHIFT)
    asked = iter(range(steps))
    line, last = StraightLine(), {}

    def velocity(latents: Tensor, _: float) -> Tensor:
        step = next(asked)
        sigma = sampler.sigmas[step]
        if step in skipped:
            if rule == "line":
                guess = line.at(sigma, 1)
                assert guess is not None
                return guess[0]
            x, v, before = last["x"], last["v"], last["sigma"]
            return {"v": v, "v - x": latents + (v - x), "x0": (latents - (x - before * v)) / sigma}[rule]
        found = exact(latents, sigma)
        line.saw(sigma, [found])
        last.update(x=latents, v=found, sigma=sigma)
        return found

    return denoise(velocity, NOISE, sampler)


FINE = walk((), steps=400)


def error(found: Tensor, truth: Tensor | None = None) -> float:
    """Relative, of the median sample: now and then one falls into another mode, whatever the rule."""
    truth = walk(()) if truth is None else truth
    return float(((found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).median())


def test_a_straight_line_is_the_best_guess_and_better_than_fewer_steps() -> None:
    line = error(walk(EVERY_SECOND))
    assert line < 0.6 * min(error(walk(EVERY_SECOND, rule)) for rule in ("v", "v - x", "x0"))
    assert line < 0.2 * error(walk((), steps=STEPS - len(EVERY_SECOND)))


def test_a_step_among_the_last_costs_more_than_many_in_the_middle() -> None:
    middle = error(walk(EVERY_SECOND))
    assert error(walk((46, 48))) > 3 * middle
    assert error(walk((49,))) > 3 * middle


def test_skipping_adds_little_to_the_error_of_the_steps_themselves() -> None:
    assert error(walk(EVERY_SECOND), FINE) < 1.2 * error(walk(()), FINE)


@pytest.mark.parametrize(("steps", "shift", "allowed"), [(50, 16.0, range(10, 45)), (50, 5.0, range(10, 37))])
def test_the_window_leaves_out_both_ends_by_noise(steps: int, shift: float, allowed: range) -> None:
    sampler: Sampler = make_sampler("unipc", steps, shift)
    assert [step for step, may in enumerate(window_of(sampler.sigmas)) if may] == list(allowed)
    assert sampler.sigmas[allowed[-1]] >= 0.65 > sampler.sigmas[allowed[-1] + 1]


@pytest.mark.parametrize("steps", [1, 4, 8, 9])
def test_no_step_of_a_short_run_may_be_skipped(steps: int) -> None:
    assert not any(window_of(make_sampler("euler", steps, 5.0).sigmas))
