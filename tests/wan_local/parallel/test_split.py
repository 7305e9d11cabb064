"""The frames of any number of GPUs are those of one: every split, in real processes over gloo, on a guided run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.attention.sparse_here import HAS_SPARSE, needs_sparse
from tests.wan_local.parallel import split_cases as cases
from tests.wan_local.quantised.float8_here import has_float8_products, needs_float8_products
from wan_local.parallel.degrees import Degrees
from wan_local.parallel.plan import moved
from wan_local.sampling import model_velocity
from wan_local.shapes import Grid
from wan_local.weights import load_transformer

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
RANKS = Path(__file__).with_name("split_ranks.py")
BOUND = 1e-5  # relative, after two guided steps; exchange and cut alone change nothing at all


OWN = [
    (world, split, grid, sharded, "own")
    for world, splits in cases.SPLITS.items()
    for split in splits
    for grid in cases.GRIDS
    for sharded in cases.SHARDED
]
OTHER = [
    (world, split, grid, sharded, "yunchang")
    for world, splits in cases.YUNCHANG.items()
    for split in splits
    for grid in cases.GRIDS
    for sharded in cases.SHARDED
]


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[int, dict[str, float]]:
    """What the ranks of each world have found; they try everything, once."""
    truth = {}
    model = load_transformer(folder / "float8.safetensors", torch.bfloat16, float8_matmul=True)
    with cases.float8_products(), torch.no_grad():
        for grid, size in cases.GRIDS.items() if has_float8_products() else ():
            given = cases.spread(cases.inputs(size))
            velocity = model_velocity(model, cases.conds(given), cases.GUIDANCE)
            truth[f"float8, {grid}"] = velocity(given["noise"], 700.0)
    cases.write_model(folder / "wide.safetensors", cases.WIDE)
    if HAS_SPARSE:
        velocity = model_velocity(load_transformer(folder / "wide.safetensors"), cases.sparse_conds(0, 4), 4.0)
        with torch.no_grad():
            truth["sparse"] = velocity(cases.inputs(cases.LONG)["noise"], 700.0)
    save_file(truth, folder / "more_truth.safetensors")
    command = [sys.executable, "-W", "ignore", str(RANKS), str(ROOT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return {world: json.loads((folder / f"told{world}.json").read_text()) for world in cases.SPLITS}


@pytest.mark.parametrize(("world", "split", "grid", "sharded", "backend"), OWN + OTHER)
def test_frames_do_not_depend_on_the_number_of_gpus(told, world, split, grid, sharded, backend) -> None:
    name = cases.name(split, grid, sharded, backend)
    print(f"{name}: {told[world][name]:.1e}")
    assert told[world][name] <= BOUND


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_compiled_blocks_give_the_same_frames(told) -> None:
    """Every rank compiles one graph by itself, for all blocks, and exchanges from inside it."""
    found, said = told[cases.COMPILED]["compiled"], told[cases.COMPILED]["said"]
    print(f"compiled on {cases.COMPILED} GPUs: {found:.1e}")
    assert len(said) == 1
    assert "being compiled" in said[0]
    assert 0 < found <= BOUND


@pytest.mark.parametrize("backend", ["own", "yunchang"])
@pytest.mark.parametrize("world", cases.SPLITS)
def test_the_kernel_that_was_asked_for_does_every_attention(told, world: int, backend: str) -> None:
    assert told[world][f"chosen kernel, {backend}"] == 2 * cases.CONFIG.num_layers


@needs_float8_products
@pytest.mark.parametrize("grid", cases.GRIDS)
@pytest.mark.parametrize("world", cases.SPLITS)
def test_fp8_products_are_rounded_as_on_one_gpu(told, world: int, grid: str) -> None:
    """bfloat16 sums over a part of the rows may be rounded otherwise; the scales themselves are the same."""
    together, apart = told[world][f"float8, {grid}"], told[world][f"float8, each GPU by itself, {grid}"]
    print(f"fp8 products on {world} GPUs, {grid}: {together:.1e}; if each GPU scaled by itself {apart:.1e}")
    assert together <= 1e-2
    assert apart > 2 * together


@needs_sparse
def test_tokens_move_before_they_are_shared_out(told) -> None:
    """A clip of an odd number of tokens, so that one GPU has a twin of the last, which is in front of the others."""
    print(f"sparse on 2 GPUs: {told[2]['sparse']:.1e}; dense {told[2]['dense']:.1e}")
    assert told[2]["sparse"] <= BOUND
    assert told[2]["dense"] > 100 * BOUND


@pytest.mark.parametrize("mutation", cases.MUTATIONS)
@pytest.mark.parametrize("world", cases.SPLITS)
def test_a_mistake_would_be_seen(told, world: int, mutation: str) -> None:
    print(f"{mutation}, {world} GPUs: {told[world][mutation]:.1e}")
    assert told[world][mutation] > 100 * BOUND
    assert told[world]["after the mutations"] <= BOUND


@pytest.mark.skipif(True not in cases.SHARDED, reason="FSDP of this torch does not work on a CPU")
@pytest.mark.parametrize("world", cases.SPLITS)
def test_fsdp_keeps_one_share_a_gpu(told, world: int) -> None:
    shares = {name: value for name, value in told[world].items() if name.startswith(("share", "block"))}
    assert len(shares) == 2 * len(cases.SPLITS[world] + cases.YUNCHANG[world])
    for name, share in shares.items():
        print(f"{name}: {share:.3f} of the bytes")
        assert abs(share - 1 / world) < 0.02


@pytest.mark.parametrize("world", cases.SPLITS)
def test_every_group_of_a_split_waits_as_long_as_the_world(told, world: int) -> None:
    """torch gives a new group a limit of its own, 10 or 30 minutes, whatever that of the world is."""
    assert told[world]["timeout"] == 77.0


@pytest.mark.parametrize("world", cases.SPLITS)
def test_the_plan_is_what_was_sent(told, world: int) -> None:
    for split in cases.SPLITS[world]:
        degrees = Degrees(**split)
        grids = [Grid(frames=4 * t - 3, height=8 * h, width=8 * w) for t, h, w in cases.GRIDS.values()]
        planned = cases.STEPS * sum(moved(cases.CONFIG, grid, degrees, itemsize=4).all for grid in grids)
        counted = told[world][f"sent {cases.name(split, '', False)}"]
        print(f"{degrees}: planned {planned:,} bytes, counted {counted:,}")
        assert counted == planned
