"""The worlds of ranks that the tests of this folder look at; each is run once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.parallel import split_cases as cases
from tests.wan_local.quantised.float8_here import has_float8_products
from wan_local.attention import sparse
from wan_local.parallel.group_model import Setup
from wan_local.ranks import Pool
from wan_local.sampling import model_velocity
from wan_local.weights import load_transformer

ROOT = Path(__file__).resolve().parents[3]
RANK = Path(__file__).with_name("split_rank.py")


def has_sparse_attention() -> bool:
    return sparse.kernel(torch.device("cpu"))[0] is not None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and what one GPU makes of every grid."""
    place = tmp_path_factory.mktemp("split")
    cases.write_model(place / "model.safetensors")
    model = load_transformer(place / "model.safetensors")
    truth = {grid: cases.alone(model, cases.inputs(size)) for grid, size in cases.GRIDS.items()}
    cases.write_float8(place / "float8.safetensors")
    model = load_transformer(place / "float8.safetensors", torch.bfloat16, float8_matmul=True)
    with cases.float8_products(), torch.no_grad():
        for grid, size in cases.GRIDS.items() if has_float8_products() else ():
            given = cases.spread(cases.inputs(size))
            velocity = model_velocity(model, cases.conds(given), cases.GUIDANCE)
            truth[f"float8, {grid}"] = velocity(given["noise"], 700.0)
    cases.write_wide(place / "wide.safetensors")
    if has_sparse_attention():
        velocity = model_velocity(load_transformer(place / "wide.safetensors"), cases.sparse_conds(0, 4), 4.0)
        with torch.no_grad():
            truth["sparse"] = velocity(cases.inputs(cases.LONG)["noise"], 700.0)
    save_file(truth, place / "truth.safetensors")
    return place


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    keeps = Pool()
    yield keeps
    keeps.close()


@pytest.fixture
def setup(folder: Path) -> Setup:
    return Setup(path=str(folder / "model.safetensors"), gpus=2, device="cpu", dtype="float32")


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


@pytest.fixture(scope="session")
def told(folder: Path) -> dict[int, dict[str, float]]:
    return {world: run(world, folder) for world in cases.SPLITS}
