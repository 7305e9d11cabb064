"""The tables of docs/memory.md are what the plan says today, and the sizes people ask for fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import memory_tables
from wan_local.memory import stored

PAGE = Path(__file__).parents[3] / "docs" / "memory.md"
newest = pytest.mark.skipif(
    not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="the tables are of a torch with a fused RMSNorm"
)


@newest
@pytest.mark.parametrize(
    "lines", [memory_tables.by_stage, memory_tables.by_card, memory_tables.of_experts, memory_tables.of_windows]
)
def test_the_page_has_the_tables_of_today(lines: object) -> None:
    assert callable(lines)
    missing = [line for line in lines() if line not in PAGE.read_text().splitlines()]
    assert not missing, "print them with: python -m benchmarks.memory_tables"


@pytest.mark.parametrize(
    ("itemsize", "clip", "gpu"),
    [(1, "1280x720, 81 frames", 8), (1, "1280x720, 81 frames", 12), (2, "1280x720, 81 frames", 12),
     (1, "832x480, 161 frames", 8)],
)  # fmt: skip
def test_a_clip_fits_into_a_small_card(itemsize: int, clip: str, gpu: int) -> None:
    config, weights = stored.released(torch.bfloat16, itemsize)
    assert memory_tables.setting(config, weights, memory_tables.CLIPS[clip], gpu) != "does not fit"
