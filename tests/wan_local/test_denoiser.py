"""Which model of a run gives the velocity of a step, under which guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from wan_local.config import WAN_FLF2V_14B, TransformerConfig
from wan_local.denoiser import ALONE, Denoiser, velocity_of
from wan_local.errors import InputError
from wan_local.notices import listening
from wan_local.sampling import Cond, Sides, Velocity, denoise, make_sampler
from wan_local.settings import mistaken_recipe

EXPERT = TransformerConfig(dim=128, ffn_dim=256, num_heads=1, num_layers=1, in_dim=36, image_dim=0)
CONDS = [Cond(condition=torch.zeros(1, 20, 1, 2, 2), text=torch.full((1, 1, 8), fill)) for fill in (1.0, 0.0)]
LATENTS = torch.ones(1, 16, 1, 2, 2)


class Model:
    """Gives its own number under the prompt and nothing under the negative prompt."""

    config = EXPERT

    def __init__(self, number: float) -> None:
        self.number, self.timesteps = number, []

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, /) -> Tensor:
        self.timesteps.append(float(timestep))
        return torch.full_like(latents[:, :16], self.number) * text[0, 0, 0]


class Elsewhere:
    """Combines cond and uncond itself, as a transformer on several GPUs does."""

    config = EXPERT

    def guided_velocity(self, conds: Sequence[Cond], guidance: float, /) -> Velocity:
        return lambda latents, timestep: torch.full_like(latents, 100.0 * guidance + len(conds))

    def sides(self, conds: Sequence[Cond], /) -> Sides:
        raise AssertionError("not asked for")


def pair(high: Model, low: Model, **high_only: float) -> list[Denoiser]:
    return [Denoiser(transformer=high, lowest=900.0, **high_only), Denoiser(transformer=low, below=900.0)]


def test_the_timestep_chooses() -> None:
    """The high-noise expert from the boundary on, as the official code has it."""
    brought: list[object] = []
    high, low = Model(1.0), Model(2.0)
    velocity = velocity_of(pair(high, low), CONDS, 3.0, lambda now, *_: brought.append(now))
    found = [velocity(LATENTS, timestep).unique().item() for timestep in (1000.0, 900.0, 899.9, 0.0)]
    assert found == [3.0, 3.0, 6.0, 6.0]
    assert brought == [high, high, low, low]


def test_each_has_its_own_guidance() -> None:
    """Guidance 1 never asks for uncond, so a step of that one alone costs a single forward."""
    high, low = Model(1.0), Model(2.0)
    velocity = velocity_of(pair(high, low, guidance=1.0), CONDS, 4.0)
    assert velocity(LATENTS, 950.0).unique().item() == 1.0
    assert velocity(LATENTS, 100.0).unique().item() == 8.0
    assert (len(high.timesteps), len(low.timesteps)) == (1, 2)


@pytest.mark.parametrize("sampler", ["unipc", "dpm++", "euler"])
def test_no_step_is_without_a_model(sampler: str) -> None:
    """A share of the steps chooses nothing: with a larger shift the same boundary gives the high one more of them."""
    counts = []
    for shift in (3.0, 16.0):
        high, low = Model(1.0), Model(2.0)
        denoise(velocity_of(pair(high, low), CONDS, 1.0), LATENTS, make_sampler(sampler, 20, shift))
        assert len(high.timesteps) + len(low.timesteps) == 20
        assert min(high.timesteps) >= 900.0 > max(low.timesteps)
        counts.append(len(high.timesteps))
    assert counts[0] < counts[1]


def test_a_model_that_guides_itself_is_asked_once() -> None:
    velocity = velocity_of([Denoiser(transformer=Elsewhere(), guidance=2.0)], CONDS, 5.0)
    assert velocity(LATENTS, 500.0).unique().item() == 202.0


def test_an_expert_alone_is_told() -> None:
    told: list[str] = []
    with listening(told.append):
        velocity_of(pair(Model(1.0), Model(2.0)), CONDS, 1.0)
        velocity_of([Denoiser(transformer=Model(1.0))], CONDS, 1.0)
    assert told == [ALONE]


def test_guidance_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="guidance=nan"):
        velocity_of([Denoiser(transformer=Model(1.0), guidance=math.nan)], CONDS, 5.0)


def test_the_other_models_values_are_told() -> None:
    assert mistaken_recipe(EXPERT, 5.5, 16.0) == (
        "guidance 5.5 and shift 16 are the values of Wan2.1 FLF2V; Wan2.2 was published with 40 steps, "
        "guidance 3.5 and shift 5"
    )
    assert mistaken_recipe(EXPERT, 3.5, 5.0) is None
    assert mistaken_recipe(EXPERT, 1.0, 5.0) is None
    assert "of Wan2.2; Wan2.1 FLF2V was published" in str(mistaken_recipe(WAN_FLF2V_14B, 3.5, 5.0))
