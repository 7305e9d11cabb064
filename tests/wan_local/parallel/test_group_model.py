"""A group of GPUs in the place of a transformer: same frames, weights read once, failures told, the next run works."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.wan_local.parallel import long_clips
from tests.wan_local.parallel import split_cases as cases
from wan_local import lora
from wan_local.denoiser import Denoiser
from wan_local.errors import Cancelled, InputError, WrongModel
from wan_local.parallel.group_model import GroupTransformer, Setup, denoisers_of
from wan_local.quantised import parameter_shapes
from wan_local.ranks import Pool, RankError
from wan_local.sampling import model_velocity
from wan_local.weights import load_transformer

pytestmark = pytest.mark.long

GRID = "45 tokens"


def clip(transformer: GroupTransformer, grid: str = GRID, guidance: float = cases.GUIDANCE) -> torch.Tensor:
    given = cases.inputs(cases.GRIDS[grid])
    return cases.trajectory(model_velocity(transformer, cases.conds(given), guidance), given["noise"])


def truth(folder: Path, grid: str = GRID) -> torch.Tensor:
    return load_file(folder / "truth.safetensors")[grid]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_two_gpus_give_the_frames_of_one_and_are_kept(folder: Path, setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool)
    began = time.perf_counter()
    assert error(clip(model), truth(folder)) <= 1e-5
    first = time.perf_counter() - began
    pids = model.start().pids
    began = time.perf_counter()
    assert error(clip(GroupTransformer(setup, pool), "48 tokens"), truth(folder, "48 tokens")) <= 1e-5
    took = time.perf_counter() - began
    print(f"first run with the start of the ranks {first:.1f} s, second {took:.2f} s")
    before = model.statistics()
    began = time.perf_counter()
    clip(model)
    beside = time.perf_counter() - began - (model.statistics()[0]["steps"] - before[0]["steps"])
    print(f"besides the steps themselves {1000 * beside / cases.STEPS:.1f} ms a step")
    assert model.start().pids == pids
    assert [told["loads"] for told in model.statistics()] == [1, 1]


@pytest.mark.parametrize("change", [{"cfg": 1}, {"cfg": 1, "ulysses": 1, "ring": 2}, {"cfg": 2}])
def test_another_split_of_the_same_gpus_loads_nothing(
    folder: Path, setup: Setup, pool: Pool, change: dict[str, int]
) -> None:
    before = GroupTransformer(setup, pool).start().pids
    model = GroupTransformer(replace(setup, **change), pool)
    assert error(clip(model), truth(folder)) <= 1e-5
    assert model.start().pids == before
    assert [told["loads"] for told in model.statistics()] == [1, 1]


def test_windows_are_cut_on_every_gpu(folder: Path, setup: Setup, pool: Pool) -> None:
    """One message a step, whatever the number of windows; their tokens are sharded like a whole clip's."""
    given, model = cases.inputs(cases.GRIDS[GRID]), GroupTransformer(setup, pool)
    cut = [cond.in_windows(2, 1, model.config) for cond in cases.conds(given)]
    one = model_velocity(load_transformer(folder / "model.safetensors"), cut, cases.GUIDANCE)
    with torch.no_grad():
        expected = cases.trajectory(one, given["noise"])
    found = cases.trajectory(model_velocity(model, cut, cases.GUIDANCE), given["noise"])
    assert error(found, expected) <= 1e-5
    assert error(found, truth(folder)) > 1e-3


@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["cfg 2", "ulysses 2"])
def test_long_clips_keyframes_and_chains_are_those_of_one(
    folder: Path, setup: Setup, pool: Pool, guidance: float
) -> None:
    model = GroupTransformer(setup, pool)
    alone = [Denoiser(transformer=load_transformer(folder / "model.safetensors"))]
    expected = long_clips.made(alone, model.config, guidance)
    found = long_clips.worst(long_clips.made(denoisers_of(model), model.config, guidance), expected)
    print({what: f"{value:.1e}" for what, value in found.items()})
    assert max(found.values()) <= 1e-5
    assert min(long_clips.between(expected)) > 1e-3


def test_guidance_one_asks_one_side(folder: Path, setup: Setup, pool: Pool) -> None:
    given = cases.inputs(cases.GRIDS[GRID])
    alone = load_transformer(folder / "model.safetensors")
    expected = cases.trajectory(model_velocity(alone, cases.conds(given), 1.0), given["noise"])
    assert error(clip(GroupTransformer(setup, pool), guidance=1.0), expected) <= 1e-5


def test_a_rank_that_dies_is_named_and_the_next_run_works(folder: Path, setup: Setup, pool: Pool) -> None:
    model = GroupTransformer(setup, pool)
    given = cases.inputs(cases.GRIDS[GRID])
    velocity = model_velocity(model, cases.conds(given), cases.GUIDANCE)
    velocity(given["noise"], 900.0)
    pids = model.start().pids
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(RankError, match="rank 1 .*failed at step 2: .*SIGKILL"):
        velocity(given["noise"], 800.0)
    assert error(clip(model), truth(folder)) <= 1e-5
    assert not set(model.start().pids) & set(pids)


def test_stop_between_and_within_steps(folder: Path, setup: Setup, pool: Pool) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    model = GroupTransformer(setup, pool, stop=stop)
    pids = GroupTransformer(setup, pool).start().pids
    with pytest.raises(Cancelled):
        [clip(model) for _ in range(20)]
    assert error(clip(GroupTransformer(setup, pool)), truth(folder)) <= 1e-5
    assert GroupTransformer(setup, pool).start().pids == pids  # a stop costs no weights


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gpus": 3, "ulysses": 3}, "ulysses=3 does not divide the 4 heads of this model; use one of 1, 2, 4, or ring"),
        ({"gpus": 4, "cfg": 2, "ulysses": 2, "ring": 2}, "makes 8 GPUs, and gpus=4"),
        ({"gpus": 4, "device": "cuda"}, r"cuda:3 is asked for \(ranks: 4\), but torch sees \d+ CUDA GPU"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_starts(setup: Setup, pool: Pool, change: dict, match: str) -> None:
    if change.get("device") == "cuda" and torch.cuda.device_count() >= 4:
        pytest.skip("this machine has four GPUs")
    with pytest.raises(InputError, match=match):
        GroupTransformer(replace(setup, **change), pool)


def test_other_models_are_refused_before_anything_starts(tmp_path: Path, setup: Setup, pool: Pool) -> None:
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, tmp_path / "flux.safetensors")
    with pytest.raises(WrongModel, match="is a Flux"):
        GroupTransformer(replace(setup, path=str(tmp_path / "flux.safetensors")), pool)


def test_other_weights_or_gpus_start_other_ranks(folder: Path, setup: Setup, pool: Pool) -> None:
    changes: list[dict[str, Any]] = [*({"fsdp": True} for sharded in cases.SHARDED if sharded), {"gpus": 4}]
    before = GroupTransformer(setup, pool).start().pids
    for change in changes:
        model = GroupTransformer(replace(setup, **change), pool)
        assert error(clip(model), truth(folder)) <= 1e-5
        assert not set(model.start().pids) & set(before)
        for pid in before:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        before = model.start().pids
        if "fsdp" in change:
            shares = [told["weights bytes"] / told["weights full"] for told in model.statistics()]
            assert all(abs(share - 0.5) < 0.02 for share in shares), shares


def test_a_lora_is_put_on_in_every_rank(folder: Path, setup: Setup, pool: Pool, tmp_path: Path) -> None:
    alone = load_transformer(folder / "model.safetensors")
    torch.manual_seed(2)
    tensors = {}
    for block in range(2):
        name = f"diffusion_model.blocks.{block}.ffn.0"
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, 96) * 0.2
        tensors[f"{name}.lora_B.weight"] = torch.randn(128, 2) * 0.2
    save_file(tensors, tmp_path / "lora.safetensors")
    lora.merge(alone, [(lora.read(tmp_path / "lora.safetensors", parameter_shapes(alone)), 0.7)])
    expected = cases.alone(alone, cases.inputs(cases.GRIDS[GRID]))
    assert error(expected, truth(folder)) > 1e-3
    model = GroupTransformer(setup, pool).with_lora(str(tmp_path / "lora.safetensors"), 0.7)
    assert error(clip(model), expected) <= 1e-5
    with pytest.raises(InputError, match="LoRAs can't be put on weights that fsdp shards"):
        GroupTransformer(replace(model.setup, fsdp=True), pool)
