"""Weights that the host has no room for are refused with numbers; what stays mapped needs none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from wan_local import free_memory
from wan_local.cli import main
from wan_local.errors import OutOfMemory
from wan_local.generate import Pipeline
from wan_local.memory import Memory, for_model
from wan_local.weights import load_transformer
from wan_local.weights.experts import find_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts in float32."""
    return tiny.write_expert_pipeline(tmp_path_factory.mktemp("experts"))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that the host has, to be set; at first enough."""
    room = [10**12]
    monkeypatch.setattr(free_memory, "free_host_bytes", lambda: room[0])
    return room


def test_what_is_converted_must_fit(folder: Path, free: list[int]) -> None:
    path = folder / "transformer"
    model = load_transformer(path, dtype=torch.bfloat16)
    size = sum(value.nbytes for value in model.parameters())
    free[0] = size - 1
    with pytest.raises(OutOfMemory, match=r"GB of host memory once converted to bfloat16, and .* GB are free; use f"):
        load_transformer(path, dtype=torch.bfloat16)
    load_transformer(path, dtype=torch.float32)  # stays in its file
    load_transformer(path)
    load_transformer(path, dtype=torch.bfloat16, device="meta")  # as on a GPU
    free[0] = size
    load_transformer(path, dtype=torch.bfloat16)


def test_two_experts_are_counted_together_before_either_is_loaded(
    folder: Path, free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sum(value.nbytes for value in load_transformer(folder / "transformer", dtype=torch.bfloat16).parameters())
    pair, cpu = find_pair(folder), torch.device("cpu")
    assert pair is not None
    free[0] = 2 * one - 1
    load_transformer(folder / "transformer", dtype=torch.bfloat16)
    with pytest.raises(OutOfMemory, match=r"the two experts and what belongs to them would take .* GB"):
        for_model(pair, torch.bfloat16, cpu)
    with pytest.raises(OutOfMemory, match="the two experts"):
        for_model(pair, torch.bfloat16, torch.device("meta"), 4)  # blocks that rest in the host
    assert isinstance(for_model(pair, torch.bfloat16, torch.device("meta"), "none"), Memory)  # loaded to the GPU
    assert isinstance(for_model(pair, torch.float32, cpu), Memory)
    monkeypatch.setattr("wan_local.generate.load_denoisers", lambda *_, **__: pytest.fail("an expert was loaded"))
    with pytest.raises(OutOfMemory):
        Pipeline.from_pretrained(folder, torch.bfloat16, "cpu")


def test_the_command_line_says_it_in_one_line(
    folder: Path, free: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Path(__file__).parents[3] / "demo" / "nano_first.png"
    free[0] = 1000
    options = ["--first", str(image), "--last", str(image), "--prompt", "a", "--output", str(tmp_path / "a.mp4")]
    assert main(["generate", "--model", str(folder), *options, "--device", "cpu", "--dtype", "bfloat16"]) == 1
    out = capsys.readouterr().err.strip().splitlines()
    assert "the two experts and what belongs to them would take" in out[-1]
    assert "or the dtype that they are stored in" in out[-1]
