"""Wan2.2's pair of experts in one run, against the official loop and against diffusers' pipeline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wan_local.conditioning import known_mask
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser, velocity_of
from wan_local.model import WanTransformer
from wan_local.sampling import Cond, cond_velocity, make_sampler
from wan_local.shapes import Grid

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "official_wan22.npz")
SIZES = TransformerConfig(
    dim=32, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=8, image_dim=0
)
BOUNDARY, LOW_GUIDANCE, HIGH_GUIDANCE = 900.0, 3.0, 4.0


def wave(shape: tuple[int, ...], scale: float, phase: float) -> Tensor:
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin((1 + 0.618 * phase) * n + phase)).float().view(shape)


def expert(offset: float) -> WanTransformer:
    """The weights that ``tests/golden/README.md`` gives a formula of."""
    model = WanTransformer(SIZES).eval().requires_grad_(False)
    for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
        small = parameter.ndim == 1 or "modulation" in name
        scale = 0.2 if small else 1.5 / math.sqrt(math.prod(parameter.shape[1:]))
        base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(base + wave(tuple(parameter.shape), scale, index + offset))
    return model


def conds() -> list[Cond]:
    grid = Grid(frames=9, height=32, width=32)
    condition = torch.cat([known_mask(grid), wave((1, 16, 3, 4, 4), 1.0, 0.5)], dim=1)
    negative = torch.zeros(1, 8, 16)
    negative[:, :5] = wave((1, 5, 16), 4.0, 0.7)
    return [Cond(condition=condition, text=text) for text in (wave((1, 8, 16), 4.0, 0.1), negative)]


def difference(found: Tensor, expected: np.ndarray) -> float:
    other = torch.from_numpy(expected)
    return ((found[0] - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize(("step", "offset", "timestep"), [(0, 0.25, 999.0), (12, 0.75, 768.0)])
def test_one_forward_of_each_expert_equals_the_official_module(step: int, offset: float, timestep: float) -> None:
    latents = torch.from_numpy(GOLDEN[f"input/{step}"])[None]
    with torch.no_grad():
        found = cond_velocity(expert(offset), conds()[0])(latents, timestep)
    error = difference(found, GOLDEN[f"velocity/{step}"])
    print(f"expert at timestep {timestep:g} against the official module: relative error {error:.1e}")
    assert error <= 1e-5


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@torch.no_grad()
def test_guided_trajectory_equals_the_official_loop(solver: str) -> None:
    """One history of the solver over the switch, and each expert under its own guidance."""
    denoisers = [
        Denoiser(transformer=expert(0.25), lowest=BOUNDARY, guidance=HIGH_GUIDANCE),
        Denoiser(transformer=expert(0.75), below=BOUNDARY),
    ]
    velocity, sampler = velocity_of(denoisers, conds(), LOW_GUIDANCE), make_sampler(solver, 20, 5.0)
    latents, worst = torch.from_numpy(GOLDEN["noise"])[None], 0.0
    for index, timestep in enumerate(sampler.timesteps):
        latents = sampler.step(latents, velocity(latents, timestep), index)
        worst = max(worst, difference(latents, GOLDEN[f"{solver}/trajectory"][index]))
    print(f"{solver}: 20 guided steps of two experts against the official loop, relative error {worst:.1e}")
    assert worst <= 1e-4


HIGH_STEPS = {  # of how many steps, by shift: counted with the official UniPC
    3: {4: 1, 6: 2, 8: 2, 20: 5, 30: 8, 40: 10},
    5: {4: 2, 6: 3, 8: 3, 20: 8, 30: 11, 40: 15},
    8: {4: 2, 6: 3, 8: 4, 20: 10, 30: 15, 40: 19},
    16: {4: 3, 6: 4, 8: 6, 20: 13, 30: 20, 40: 26},
}


@pytest.mark.parametrize("shift", HIGH_STEPS)
def test_as_many_steps_are_the_high_experts_as_officially(shift: int) -> None:
    high = Denoiser(transformer=expert(0.25), lowest=BOUNDARY)
    for steps, expected in HIGH_STEPS[shift].items():
        assert sum(map(high.covers, make_sampler("unipc", steps, float(shift)).timesteps)) == expected
