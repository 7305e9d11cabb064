"""The arithmetic behind every TFLOP/s figure, against figures worked out by hand for the released model."""

from __future__ import annotations

import pytest

from wan_local.config import WAN_FLF2V_14B, WAN_VAE
from wan_local.flops import transformer_forward, vae_decode
from wan_local.shapes import Grid


@pytest.mark.parametrize(
    ("width", "height", "tokens", "forward", "decode"),
    [(1280, 720, 75_600, 6.5575e15, 639e12), (832, 480, 32_760, 1.6944e15, 275e12)],
)
def test_published_sizes(width, height, tokens, forward, decode):
    grid = Grid(frames=81, height=height, width=width)
    assert grid.tokens == tokens
    assert transformer_forward(WAN_FLF2V_14B, grid) == pytest.approx(forward, rel=1e-3)
    assert vae_decode(WAN_VAE, grid) == pytest.approx(decode, rel=5e-3)
