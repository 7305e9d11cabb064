"""What ``python -m wan_local bench`` measures and says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wan_local import flops, speed
from wan_local.attention import sdpa
from wan_local.cli import bench, main
from wan_local.config import WAN_FLF2V_14B, TransformerConfig
from wan_local.shapes import Grid

TINY = TransformerConfig(dim=64, ffn_dim=128, num_heads=2, num_layers=3, text_dim=16, image_dim=16, image_tokens=6,
                         text_len=8)  # fmt: skip
GRID = Grid(frames=5, height=32, width=48)
H100 = speed.Speed(
    block=0.286, attention=0.200, products=0.058, best=800e12, blocks=80,
    attention_work=flops.block_attention(WAN_FLF2V_14B, Grid(frames=81, height=720, width=1280)),
    products_work=flops.block_products(WAN_FLF2V_14B, Grid(frames=81, height=720, width=1280)),
)  # fmt: skip


@pytest.mark.parametrize("images", [True, False])
def test_a_block_is_timed_in_parts(images: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SQUARE", 256)
    config = TINY if images else replace(TINY, image_dim=0, image_tokens=0)
    found = speed.measure(config, GRID, torch.float32, torch.device("cpu"), sdpa.attend)
    assert found.blocks == 6
    assert min(found.block, found.attention, found.products, found.best) > 0
    assert found.attention_work == 4 * GRID.tokens * (GRID.tokens + 8 + config.image_tokens) * 64
    assert found.step == pytest.approx(6 * found.block)


def test_a_forward_is_its_blocks_and_its_ends() -> None:
    grid = Grid(frames=81, height=480, width=832)
    blocks = 40 * (flops.block_attention(WAN_FLF2V_14B, grid) + flops.block_products(WAN_FLF2V_14B, grid))
    ends = flops.transformer_forward(WAN_FLF2V_14B, grid) - blocks
    assert 0 < ends < 0.001 * blocks


def test_what_is_told_of_a_fast_gpu() -> None:
    told = bench.table(H100, 50)
    print(told)
    assert "a guided step     22.88 s   573 TFLOP/s; 50 steps in 19.1 min" in told
    assert "  the rest         2.24 s" in told
    assert bench.reasons(H100, ["cudnn"], (9, 0)) == ["this step reaches 72% of one large product's rate"]


def test_what_is_told_of_a_slow_kernel_and_of_much_rest() -> None:
    slow = replace(H100, attention=0.330, block=0.460)
    told = bench.reasons(slow, ["flash"], (9, 0))
    assert any("flash reaches 45% of it; FlashAttention 3" in reason for reason in told)
    assert any("--compile" in reason for reason in told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--device", "cpu"], "a step on a CPU takes hours"), (["--height", "719"], "719"), (["--length", "80"], "80")],
)
def test_what_cannot_be_timed_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
