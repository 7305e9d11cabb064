"""Plans of steps to skip, known before a run."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from wan_local.approximations.magcache import MEASURED_SHIFT, WAN21, WAN22, magcache, ratios_on
from wan_local.approximations.skip_list import skip_list
from wan_local.approximations.window import after_starts, window_of
from wan_local.sampling import make_sampler

UNIPC = make_sampler("unipc", 50, 16.0)
WINDOW = window_of(UNIPC.sigmas)
ONE = [0] * 50


def test_every_second_step_of_the_middle() -> None:
    assert skip_list(WINDOW, ONE, 1) == frozenset(range(11, 45, 2))
    two = skip_list(WINDOW, ONE, 2)
    assert {10, 13, 16} & two == set()
    assert {11, 12, 14, 15} <= two
    assert max(two) <= 44


def test_each_expert_begins_anew() -> None:
    """Its first two steps are asked for: nothing is known of it before."""
    experts = [0] * 21 + [1] * 29
    window = after_starts(WINDOW, experts)
    assert not any(window[21:23])
    for plan in (
        skip_list(window, experts, 4),
        magcache([1.0] * 50, window, experts, 0.5, 4),
    ):
        assert plan
        assert not plan & {21, 22}
    assert 23 not in skip_list(window, experts, 4)  # nor the first of the pattern
    assert after_starts(WINDOW, ONE) == WINDOW


@pytest.mark.parametrize("measured", [WAN21, WAN22])
def test_the_curve_gives_back_the_published_ratios(measured: tuple[float, ...]) -> None:
    steps = make_sampler("euler", len(measured) + 1, MEASURED_SHIFT)
    assert ratios_on(steps.sigmas, measured) == pytest.approx([1.0, *measured], rel=1e-6)


def test_more_steps_change_less_each() -> None:
    """By index, as published, the ratios of the last steps would be read in the middle of this schedule."""
    coarse, fine = (ratios_on(make_sampler("euler", steps, 5.0).sigmas, WAN21) for steps in (40, 80))
    assert fine[40] > coarse[20]
    assert sum(map(lambda ratio: abs(1 - ratio), ratios_on(UNIPC.sigmas, WAN21)[:20])) < 0.1


def test_magcache_on_the_published_schedule() -> None:
    plan = magcache(ratios_on(UNIPC.sigmas, WAN21), WINDOW, ONE, 0.12, 2)
    assert len(plan) == 24
    assert all(WINDOW[step] for step in plan)
    assert not magcache(ratios_on(UNIPC.sigmas, WAN21), WINDOW, ONE, 1e-6, 2)


@pytest.mark.parametrize(("threshold", "in_a_row"), [(0.12, 2), (0.06, 3), (0.03, 4)])
def test_magcache_skips_what_diffusers_skips(threshold: float, in_a_row: int) -> None:
    """The published rule itself: its ratios by index, and no guard but the first fifth."""
    published = pytest.importorskip("diffusers.hooks.mag_cache", reason="this diffusers is older than its MagCache")
    steps, ratios = 40, [1.0, *WAN21]
    model = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=8,
        num_layers=2,
    )  # fmt: skip
    asked: list[int] = []
    model.blocks[1].ffn.register_forward_hook(lambda *_: asked.append(len(given)))
    published.apply_mag_cache(
        model,
        published.MagCacheConfig(
            threshold=threshold, max_skip_steps=in_a_row, num_inference_steps=steps, mag_ratios=ratios,
        ),
    )  # fmt: skip
    with torch.no_grad(), model.cache_context("cond"):
        given: list[Tensor] = []
        while len(given) < steps:
            given.append(model(torch.zeros(1, 4, 1, 2, 2), torch.tensor([1]), torch.zeros(1, 1, 8))[0])
    theirs = frozenset(range(steps)) - set(asked)
    assert theirs
    assert magcache(ratios, [step >= 8 for step in range(steps)], [0] * steps, threshold, in_a_row) == theirs
