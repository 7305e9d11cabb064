"""The model that the tests of this folder split, and what one GPU makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.parallel import split_cases as cases
from tests.wan_local.weights import packed_files
from wan_local.parallel.group_model import Setup
from wan_local.ranks import Pool
from wan_local.weights import load_transformer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and what one GPU makes of every grid."""
    place = tmp_path_factory.mktemp("split")
    cases.write_model(place / "model.safetensors")
    model = load_transformer(place / "model.safetensors")
    truth = {grid: cases.alone(model, cases.inputs(size)) for grid, size in cases.GRIDS.items()}
    save_file(truth, place / "truth.safetensors")
    packed, stated = cases.weights(cases.NARROW), cases.stated(cases.NARROW)
    packed_files.write_comfy_scaled(place / "float8.safetensors", packed, torch.float8_e4m3fn, stated)
    return place


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    keeps = Pool()
    yield keeps
    keeps.close()


@pytest.fixture
def setup(folder: Path) -> Setup:
    return Setup(path=str(folder / "model.safetensors"), gpus=2, device="cpu", dtype="float32")
