"""The check against float64: right of a right result, cheap, and not blind to what is wrong in one place."""

from __future__ import annotations

import pytest
import torch

from wan_local.attention import check, sdpa
from wan_local.memory.live import LiveBytes


def problem(queries, keys, heads=3, batch=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, rows, heads, 16, generator=generator).to(dtype) for rows in (queries, keys, keys)]


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 9), (200, 514), (64, 2 * check.KEYS + 7)])
def test_a_right_result_is_right(queries, keys):
    q, k, v = problem(queries, keys, batch=2)
    assert check.error(sdpa.attend(q, k, v), q, k, v) < 1e-6


def test_rows_in_float64_are_softmax_attention_whatever_the_scores():
    q, k, v = (rows[0, :, 0].double() for rows in problem(8, 2 * check.KEYS + 7))
    q *= 300  # so that most weights vanish
    expected = ((q @ k.T) / 4).softmax(1) @ v
    assert (check.exact_rows(q, k, v) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("rows", [slice(0, 1), slice(-1, None), slice(300, 640), slice(None)])
def test_wrong_rows_show(rows):
    q, k, v = problem(1000, 1000)
    out = sdpa.attend(q, k, v)
    out[:, rows] += 0.5
    assert check.error(out, q, k, v) > 0.05


def test_nan_shows_unless_it_came_in():
    q, k, v = problem(100, 100)
    out = sdpa.attend(q, k, v)
    out[:, -1] = float("nan")
    assert check.error(out, q, k, v) == float("inf")
    v[:, 3] = float("nan")
    assert check.error(sdpa.attend(q, k, v), q, k, v) == 0.0
    q, k, v = problem(10, 10)
    v.zero_()
    assert check.error(sdpa.attend(q, k, v), q, k, v) == 0.0


def test_it_takes_little_memory():
    q, k, v = problem(40_000, 40_000, heads=1, dtype=torch.bfloat16)
    with LiveBytes() as live:
        check.error(q, q, k, v)
    assert live.peak < 4 * check.KEYS * (16 + check.ROWS) * 8
