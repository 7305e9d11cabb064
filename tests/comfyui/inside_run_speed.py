"""What a finished run says of its speed, on a stand-in of a GPU that multiplies at a known rate."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
