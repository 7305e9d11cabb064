"""EasyCache against its formulas, on numbers that can be followed by hand."""

from __future__ import annotations

import pytest
import torch

from wan_local.approximations.easycache import EasyCache


def full(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 2, 2), value)


def seen(threshold: float = 0.2) -> EasyCache:
    """x from 1.0 to 0.9 changed v from 2.0 to 1.8: k = 2."""
    cache = EasyCache(threshold)
    assert cache.guess(full(1.0), 2) is None
    cache.saw(full(1.0), [full(2.0), full(5.0)])
    assert cache.guess(full(0.95), 2) is None, "no rate is known from one forward"
    cache.saw(full(0.9), [full(1.8), full(4.0)])
    return cache


def test_it_goes_on_from_the_latents_until_the_change_adds_up() -> None:
    """e = 2 * 0.05 / 1.8 = 0.056 and then 2 * 0.1 / 1.8 = 0.111: 0.167 in all; the third would be 0.333."""
    cache = seen()
    for latents in (0.85, 0.8):
        cond, uncond = cache.guess(full(latents), 2) or []
        assert cond.unique().item() == pytest.approx(latents + 0.9)
        assert uncond.unique().item() == pytest.approx(latents + 3.1)
    assert cache.guess(full(0.75), 2) is None


def test_a_forward_begins_anew_with_the_rate_since_the_last_one() -> None:
    cache = seen()
    assert cache.guess(full(0.85), 2)
    cache.saw(full(0.8), [full(1.7), full(3.0)])  # k = 0.1 / 0.1 = 1
    assert cache.guess(full(0.7), 2)  # 0.1 / 1.7 = 0.059
    assert cache.guess(full(0.6), 2)  # + 0.118 = 0.176
    assert cache.guess(full(0.5), 2) is None  # + 0.176


def test_other_prompts_are_another_state() -> None:
    cache = seen()
    assert cache.guess(full(0.85), 1) is None
    cache.saw(full(0.8), [full(1.6)])
    assert cache.guess(full(0.79), 1) is None


def test_latents_that_do_not_move_or_are_broken_ask() -> None:
    cache = EasyCache(0.2)
    for _ in range(2):
        cache.saw(full(1.0), [full(2.0)])
    assert cache.guess(full(1.0), 1) is None
    assert seen().guess(full(float("nan")), 2) is None
