"""The arithmetic behind every TFLOP/s figure, against figures worked out by hand for the released model."""

from __future__ import annotations

import pytest

from benchmarks.pairs import decode_work
from wan_local.config import WAN_FLF2V_14B, WAN_VAE
from wan_local.flops import transformer_forward
from wan_local.shapes import Grid


@pytest.mark.parametrize(
    ("width", "height", "tokens", "forward"), [(1280, 720, 75_600, 6.5575e15), (832, 480, 32_760, 1.6944e15)]
)
def test_published_sizes(width, height, tokens, forward):
    grid = Grid(frames=81, height=height, width=width)
    assert grid.tokens == tokens
    assert transformer_forward(WAN_FLF2V_14B, grid) == pytest.approx(forward, rel=1e-3)


def test_decoding_five_frames():
    """By hand, layer by layer: 1.796e13."""
    assert decode_work(WAN_VAE, Grid(frames=5, height=480, width=832)) == pytest.approx(1.796e13, rel=5e-3)
