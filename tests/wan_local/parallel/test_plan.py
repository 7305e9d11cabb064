"""What a split moves: the plan against what the exchanges count at the real shape; in real processes: test_split.py."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks import multi_gpu_plan
from wan_local.config import WAN_FLF2V_14B
from wan_local.flops import transformer_forward
from wan_local.memory.stored import released
from wan_local.parallel import sequence
from wan_local.parallel.collectives import Groups
from wan_local.parallel.degrees import Degrees, choose
from wan_local.parallel.plan import GpuRates, gpu_bytes, moved, step_seconds
from wan_local.parallel.sequence import ShardedSequence
from wan_local.shapes import Grid

REAL = Grid(frames=81, height=720, width=1280)
H100 = GpuRates(name="H100", flops=352e12, link=300e9)
PAGE = Path(__file__).parents[3] / "docs" / "multi_gpu.md"


@pytest.fixture(params=[(1, 8, 1), (1, 4, 2), (1, 5, 1), (1, 1, 8), (2, 4, 1)])
def world(request):
    """A world of GPUs that are not there: shapes travel, numbers don't."""
    degrees = Degrees(cfg=request.param[0], ulysses=request.param[1], ring=request.param[2])
    dist.init_process_group("fake", store=FakeStore(), rank=degrees.gpus - 1, world_size=degrees.gpus)
    yield degrees
    dist.destroy_process_group()


@pytest.mark.skipif(
    not torch._C._dispatch_has_kernel_for_dispatch_key("c10d::alltoall_base_", "Meta"),
    reason="this torch exchanges no tensors without numbers",
)
def test_the_real_shape_goes_through_a_split(world: Degrees) -> None:
    """75,600 tokens, 40 heads of 128, in bfloat16: sharded, exchanged, attended to, gathered; bytes of one layer."""
    groups = Groups(world, None)
    share, heads, width = ShardedSequence(groups), WAN_FLF2V_14B.num_heads, WAN_FLF2V_14B.head_dim
    seen = []

    def attend(q, k, v):
        seen.append((q.shape, k.shape))
        return torch.empty_like(q)

    def in_ring(ring, q, k, v, length):
        seen.append((q.shape, k.shape))
        for _ in range(ring.size - 1):
            k, v = ring.pass_on([k, v])
        return torch.empty_like(q)

    passed = []
    with (
        FakeTensorMode(),
        mock.patch.object(sequence, "ring_attention", in_ring),
        mock.patch.object(dist, "batch_isend_irecv", lambda work: passed.append(len(work)) or []),
    ):
        tokens = torch.empty(1, REAL.tokens, heads * width, dtype=torch.bfloat16)
        part = share.shard(tokens, dim=1)
        assert part.shape == (1, REAL.tokens // world.shards, heads * width)
        q = part.unflatten(-1, (heads, width))
        out = share.attention(attend, REAL.tokens)(q, q, q)
        assert out.shape == q.shape
        sent = groups.traffic.sent
        assert share.gather(part, REAL.tokens, dim=1).shape == tokens.shape
    piece = REAL.tokens // world.ring
    assert seen == [((1, piece, heads // world.ulysses, width),) * 2]
    one = moved(WAN_FLF2V_14B, REAL, world, guided=False)
    assert sent == (one.ulysses + one.ring) // WAN_FLF2V_14B.num_layers
    print(f"{world}: {sent / 1e9:.3f} GB a layer leave a GPU")


@pytest.mark.parametrize(("gpus", "expected"), [(2, 31.0), (4, 23.2), (8, 13.5)])
def test_ulysses_moves_what_was_worked_out_by_hand(gpus: int, expected: float) -> None:
    """GB a GPU and forward at 720p in bfloat16."""
    found = moved(WAN_FLF2V_14B, REAL, Degrees(ulysses=gpus), guided=False).ulysses / 1e9
    assert found == pytest.approx(expected, rel=0.01)


def test_guidance_on_two_gpus_moves_one_latent() -> None:
    found = moved(WAN_FLF2V_14B, REAL, Degrees(cfg=2))
    assert found.all == 16 * 21 * 90 * 160 * 4


def test_published_times_of_the_official_code() -> None:
    """One GPU's published rate and the plan give its published times on more, within a fifth: they don't overlap."""
    flops = transformer_forward(WAN_FLF2V_14B, REAL)
    for gpus, published in ((1, 37.3), (2, 18.85), (4, 10.1), (8, 5.97)):
        degrees = Degrees(ulysses=gpus)  # theirs: two forwards in turn, Ulysses only
        _, weights = released(torch.bfloat16, 2)
        bytes_moved = moved(WAN_FLF2V_14B, REAL, degrees, weights=weights.transformer if gpus > 1 else 0)
        predicted = step_seconds(flops, bytes_moved, degrees, H100)
        print(f"{gpus} GPUs: {predicted:.2f} s a step predicted, {published} published")
        assert predicted == pytest.approx(published, rel=0.2)


def test_weights_of_a_gpu() -> None:
    config, weights = released(torch.bfloat16, 2)
    alone = gpu_bytes(config, weights, REAL, Degrees())
    eight = gpu_bytes(config, weights, REAL, choose(8, 40)[0], fsdp=True)
    print(f"720p in bf16: {alone / 1e9:.1f} GB on one GPU, {eight / 1e9:.1f} GB on each of eight with fsdp")
    assert alone > weights.transformer
    assert eight < 0.35 * alone


@pytest.mark.skipif(
    not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="the tables are of a torch with a fused RMSNorm"
)
def test_the_page_has_the_tables_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    multi_gpu_plan.main()
    page = PAGE.read_text("utf-8").splitlines()
    missing = [line for line in capsys.readouterr().out.splitlines() if line not in page]
    assert not missing, "print them with: python -m benchmarks.multi_gpu_plan"
