"""What one rank does at a step, beside the others; they are torch's fake process group, which waits for nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from tests.wan_local.parallel import split_cases as cases
from wan_local.parallel.rank_model import Rank
from wan_local.ranks import RankInfo


class Collectives(TorchDispatchMode):
    """Counts them, as torch is asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in str(op):
            self.names.append(str(op))
        return op(*args, **(kwargs or {}))


def of_one_prompt(number: int, path: Path) -> tuple[list[str], bool]:
    """The collectives of rank ``number`` of two, sharded by fsdp with a prompt each, at a step that asks for the first
    prompt alone; and whether it answered."""
    dist.init_process_group("fake", store=FakeStore(), rank=number, world_size=2)
    try:
        rank = Rank(RankInfo(rank=number, world=2, device="cpu", backend="gloo", timeout=60.0), cfg=2)
        rank.load(str(path), dtype="float32", fsdp=True)
        given = cases.inputs(cases.GRIDS["45 tokens"])
        rank.begin([{"condition": c.condition, "text": c.text, "image": c.image} for c in cases.conds(given)], None)
        with Collectives() as counted:
            found = rank.sides(given["noise"], 900.0, 1)
        return counted.names, found is not None
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(True not in cases.SHARDED, reason="this torch has no fsdp on a CPU")
def test_both_halves_gather_sharded_weights_where_one_prompt_is_asked(folder: Path) -> None:
    """Else the half that is asked waits in a gather that the other never joins."""
    (first, answered), (second, silent) = (of_one_prompt(number, folder / "model.safetensors") for number in range(2))
    assert first == second
    assert len(first) > 1
    assert (answered, silent) == (True, False)
