"""What a finished run says of its speed, on a stand-in of a GPU that multiplies at a known rate."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from inside_checks import check, lib

BEST = 800e12  # operations a second of one large product
STEP = 22.88  # seconds; with guidance, 573 TFLOP/s of the released model at its size
EXACT = "exact"  # what a run says that calculated everything


@contextmanager
def gpu(nodes: Any, best: Any) -> Iterator[Any]:
    """The module under test, where a GPU of that rate is named, and its file of paces is one of its own."""
    tested = importlib.import_module(".run_speed", nodes.__package__)
    rate = mock.patch.object(tested.speed, "best_rate", side_effect=best if callable(best) else lambda *_: best)
    name = mock.patch.object(nodes.host, "device_name", return_value="stand-in GPU")
    with tempfile.TemporaryDirectory() as folder, rate, name:
        with mock.patch.object(nodes.host, "private_folder", return_value=Path(folder)):
            tested._best.cache_clear()
            yield tested
            tested._best.cache_clear()


def model(nodes: Any, gpus: int = 1, scales: tuple[float | None, ...] = (None,)) -> Any:
    """The released model on such a GPU; with several ``scales``, an expert each, of its own guidance scale."""
    import torch

    return SimpleNamespace(
        device=torch.device("cuda"),
        setup=lib(nodes, "parallel.setup").Setup(path="released.safetensors", gpus=gpus),
        transformer=SimpleNamespace(config=lib(nodes, "config").WAN_FLF2V_14B),
        denoisers=lambda grid: [lib(nodes, "denoiser").Denoiser(transformer=None, guidance=own) for own in scales],
    )


def full_size(nodes: Any) -> Any:
    return lib(nodes, "shapes").Grid(frames=81, height=720, width=1280)


@check
def a_run_says_its_share_of_what_the_gpu_does_at_best(nodes: Any) -> str:
    grid = full_size(nodes)
    with gpu(nodes, BEST) as run_speed:
        told = run_speed.told(model(nodes), grid, 5.0, STEP, EXACT)
        assert told == "22.88 s/step, 573.2 TFLOP/s, 72% of this GPU's 800 at best in bfloat16", told
        assert "286.6 TFLOP/s, 36% of" in run_speed.told(model(nodes), grid, 1.0, STEP, EXACT), (
            "one forward, no guidance"
        )
        assert "1146.4 TFLOP/s, 143% of" in run_speed.told(model(nodes), grid, 5.0, STEP, EXACT, 2), "two clips at once"
        assert "573.2 TFLOP/s, 36% of" in run_speed.told(model(nodes, gpus=2), grid, 5.0, STEP, EXACT), (
            "a GPU's share of two"
        )
    return told


@check
def a_pace_is_that_of_one_split_alone(nodes: Any) -> None:
    """fsdp, the degrees of a run and a cluster change what a step takes."""
    pace = importlib.import_module(".pace", nodes.__package__)
    config = lib(nodes, "config").WAN_FLF2V_14B
    one = model(nodes).setup
    ways = [{"gpus": 1}, {"gpus": 4}, {"gpus": 4, "cfg": 1}, {"gpus": 4, "cfg": 1, "ring": 4}]
    ways += [{"gpus": 4, "fsdp": True}, {"gpus": 4, "ray_address": "local"}]
    kinds = [pace.kind(replace(one, **way), config, guided=True) for way in ways]
    assert len(set(kinds)) == len(ways), kinds
    assert kinds[1].endswith("cfg 2 x ulysses 2 x ring 1"), kinds
    assert pace.kind(replace(one, gpus=4), config, guided=False) == kinds[2]


@check
def the_estimate_behind_multi_gpu_is_that_of_each_gpu(nodes: Any) -> str:
    """Of the released model on GPUs of 24 and 80 GB; none has a block that waits in the host."""
    import torch

    tested = importlib.import_module(".editor.estimate", nodes.__package__)
    config, weights = lib(nodes, "memory.stored").released(torch.bfloat16, 2)
    vae = lib(nodes, "config").WAN_VAE
    asked = {"width": "832", "height": "480", "length": "81", "steps": "20", "guidance": "5", "model_name": "released"}
    many = {"gpus": "4", "ulysses": "0", "ring": "0", "cfg_parallel": "auto", "fsdp": "false", "ray_address": ""}

    def told(total: float = 80e9, **more: str) -> Any:
        with (
            mock.patch.object(tested, "_path", return_value=Path(__file__)),
            mock.patch.object(tested, "_stored", return_value=(config, weights, vae)),
            mock.patch.object(nodes.host, "compute_device", return_value=torch.device("cuda")),
            mock.patch.object(nodes.host, "total_memory", return_value=int(total)),
        ):
            return tested.estimate(asked | more)

    with gpu(nodes, None):
        one, four, sharded = told(24e9), told(**many), told(24e9, **many | {"fsdp": "true"})
        assert (one["need"] > 24e9 > one["least"], "each" in one) == (True, False), one
        assert [round(each["need"] / 1e9) for each in (four, sharded)] == [34, 11], sharded  # as docs/multi_gpu.md
        assert four["least"] == four["need"], "nothing is offloaded there"
        assert told(**many | {"cfg_parallel": "off"})["need"] < four["need"], "the work is shared by four"
        assert told(**many | {"gpus": "3", "ulysses": "3"})["problem"].startswith("ulysses=3 does not divide")
        there = told(**many | {"ray_address": "10.0.0.1:6379"})
        assert "total" not in there, "nobody here knows that of a cluster's GPUs"
        assert there["need"] == four["need"]
    return f"{four['need'] / 1e9:.1f} GB, {sharded['need'] / 1e9:.1f} GB with fsdp"


@check
def a_run_says_no_share_that_it_does_not_know(nodes: Any) -> None:
    import torch

    def full(*_: Any) -> float:
        raise torch.cuda.OutOfMemoryError("full")

    grid = full_size(nodes)
    with gpu(nodes, full) as run_speed:
        assert run_speed.told(model(nodes), grid, 5.0, STEP, EXACT) == "22.88 s/step, 573.2 TFLOP/s"
        assert run_speed.told(model(nodes), grid, 5.0, STEP, "balanced") == ""
        assert run_speed.told(model(nodes), grid, 5.0, None, EXACT) == ""
        assert "TFLOP/s" in run_speed.told(model(nodes, scales=(None, 3.0)), grid, 5.0, STEP, EXACT)
        assert run_speed.told(model(nodes, scales=(None, 1.0)), grid, 5.0, STEP, EXACT) == "", (
            "half of its steps take twice"
        )
