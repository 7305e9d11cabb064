"""The frames of any number of cards are those of one: every split, in real processes over gloo, on a guided run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.wan_local.parallel import split_cases as cases
from wan_local.weights import load_transformer

ROOT = Path(__file__).resolve().parents[3]
RANK = Path(__file__).with_name("split_rank.py")
BOUND = 1e-5  # relative, after four guided steps; exchange and cut alone change nothing at all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and what one card makes of every grid."""
    place = tmp_path_factory.mktemp("split")
    cases.write_model(place / "model.safetensors")
    model = load_transformer(place / "model.safetensors")
    truth = {grid: cases.alone(model, cases.inputs(size)) for grid, size in cases.GRIDS.items()}
    save_file(truth, place / "truth.safetensors")
    return place


def run(world: int, folder: Path) -> dict[str, float]:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(RANK), str(ROOT), str(world), str(rank), str(folder)],
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(rank.returncode for rank in ranks), "\n".join(errors)[-4000:]
    return json.loads((folder / f"told{world}.json").read_text())


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[int, dict[str, float]]:
    return {world: run(world, folder) for world in cases.SPLITS}


OWN = [
    (world, split, grid, dealt, "own")
    for world, splits in cases.SPLITS.items()
    for split in splits
    for grid in cases.GRIDS
    for dealt in (False, True)
]
OTHER = [
    (world, split, grid, False, "yunchang")
    for world, splits in cases.YUNCHANG.items()
    for split in splits
    for grid in cases.GRIDS
]


@pytest.mark.parametrize(("world", "split", "grid", "dealt", "backend"), OWN + OTHER)
def test_frames_do_not_depend_on_the_number_of_cards(told, world, split, grid, dealt, backend) -> None:
    name = cases.name(split, grid, dealt, backend)
    print(f"{name}: {told[world][name]:.1e}")
    assert told[world][name] <= BOUND


@pytest.mark.parametrize("mutation", cases.MUTATIONS)
@pytest.mark.parametrize("world", cases.SPLITS)
def test_a_mistake_would_be_seen(told, world: int, mutation: str) -> None:
    print(f"{mutation}, {world} cards: {told[world][mutation]:.1e}")
    assert told[world][mutation] > 100 * BOUND
    assert told[world]["after the mutations"] <= BOUND


@pytest.mark.parametrize("world", cases.SPLITS)
def test_fsdp_keeps_one_share_a_card(told, world: int) -> None:
    shares = {name: value for name, value in told[world].items() if name.startswith(("share", "block"))}
    assert len(shares) == 2 * len(cases.SPLITS[world])
    for name, share in shares.items():
        print(f"{name}: {share:.3f} of the bytes")
        assert abs(share - 1 / world) < 0.02
