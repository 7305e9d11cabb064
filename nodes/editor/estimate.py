"""What a run will take, before it is queued: memory by the plan, seconds by the pace of runs before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...wan_local.config import TransformerConfig, VAEConfig
from ...wan_local.errors import InputError, WeightsError
from ...wan_local.memory import plan, stored
from ...wan_local.memory.plan import Weights
from ...wan_local.parallel.degrees import AUTO, Degrees
from ...wan_local.parallel.plan import experts_take_turns, gpu_bytes
from ...wan_local.parallel.setup import Setup
from ...wan_local.shapes import Grid
from ...wan_local.weights.experts import Pair, find_pair
from .. import host, pace, weight_files, widgets
from ..loading import DTYPES, FAST
from ..multi_gpu import CFG

KIND = "diffusion_models"
T = TypeVar("T", int, float)


def estimate(asked: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows on a node.

    Args:
        asked: ``width``, ``height``, ``length``, ``steps``, ``guidance``, and of the loader that the model comes from
            ``folder`` or ``model_name`` with ``weight_dtype``, ``attention`` and ``compile``; behind Multi GPU all
            that is chosen there.

    Returns:
        ``tokens``; ``need``, ``least`` and ``total`` bytes of memory on ``device``, where the weights are known; behind
        Multi GPU ``each``, of each GPU, and no ``total`` where they are in a cluster; and
        ``seconds`` of sampling, with ``measured`` for whether this very size has run, where this model has and steps
        and guidance are known.
        ``problem`` instead, if it can't be.
    """
    try:
        grid = _grid(asked)
        forwards = None
        if "steps" in asked and "guidance" in asked:
            forwards = _number(asked, "steps", 1) * (1 if _number(asked, "guidance", 1.0) == 1 else 2)
        return {"tokens": grid.tokens, **_of_model(asked, grid, forwards)}
    except InputError as error:
        return {"problem": str(error)}


def _grid(asked: Mapping[str, str]) -> Grid:
    try:
        width, height, length = (int(asked[name]) for name in ("width", "height", "length"))
    except (KeyError, ValueError):
        raise InputError("width, height and length are not whole numbers") from None
    widgets.check_size(width, height, length)
    return Grid(frames=length, height=height, width=width)


def _of_model(asked: Mapping[str, str], grid: Grid, forwards: int | None) -> dict[str, Any]:
    path = _path(asked)
    if path is None:
        return {}
    device, dtype = host.compute_device(), asked.get("weight_dtype", "default")
    known = _stored(
        path, path.stat().st_mtime_ns, host.compute_dtype(torch.bfloat16, device), DTYPES.get(dtype) is not None
    )
    if known is None:
        return {}
    config, weights, vae = known
    pair, spread = _pair(path), "gpus" in asked
    setup = Setup(
        path=str(path if pair is None else pair.high),
        **(_spread(asked) if spread else {"gpus": 1}),
        attention=asked.get("attention", "auto"),
        unpack=DTYPES.get(dtype) is not None,
        float8_matmul=dtype == FAST,
        compiled=asked.get("compile") == "true",
    )
    name, guided = host.device_name(device), _number(asked, "guidance", 0.0) != 1
    found = pace.forward_seconds(name, pace.kind(setup, config, guided=guided), config, grid)
    total, told = host.total_memory(device), {"device": name, "gpu": device.type != "cpu"}
    if spread:
        memory = told | _of_each(setup, config, weights, grid, setup.split(config, guided)[0], device, total)
    else:
        memory = told | _of_one(config, weights, vae, grid) | {"total": total}
    if found is None or forwards is None:
        return memory
    return {**memory, "seconds": found[0] * forwards, "measured": found[1]}


def _spread(asked: Mapping[str, str]) -> dict[str, Any]:
    """What is chosen on Multi GPU, as a setup has it."""
    degrees = {name: _number(asked, name, AUTO) for name in ("ulysses", "ring")}
    chosen = {"cfg": CFG.get(asked.get("cfg_parallel", "auto"), AUTO), "fsdp": asked.get("fsdp") == "true"}
    return degrees | chosen | {"gpus": _number(asked, "gpus", 1), "ray_address": asked.get("ray_address", "").strip()}


def _of_one(config: TransformerConfig, weights: Weights, vae: VAEConfig, grid: Grid) -> dict[str, int]:
    """Bytes on one GPU, with all blocks there, and while sampling with none."""
    (planned,) = plan(config, weights, vae=vae, grids=[grid], settings=[0, config.num_layers])
    together, least = planned.settings
    sampling = next(stage.device for stage in least.stages if stage.name == "sampling")
    return {"need": together.device, "least": sampling}


def _of_each(
    setup: Setup,
    config: TransformerConfig,
    weights: Weights,
    grid: Grid,
    degrees: Degrees,
    device: torch.device,
    total: int,
) -> dict[str, Any]:
    """Bytes on each of several GPUs, where no block waits in the host; to try it out, of all ranks of a CPU."""
    if device.type != "cpu" and not setup.fsdp and experts_take_turns(config, weights, total):
        weights = replace(weights, waiting=())
    need = gpu_bytes(config, weights, grid, degrees, fsdp=setup.fsdp)
    if setup.ray_address:
        return {"gpu": True, "each": True, "need": need}
    if device.type == "cpu":
        need *= setup.gpus
    return {"each": True, "need": need, "least": need, "total": total}


def _path(asked: Mapping[str, str]) -> Path | None:
    """Where the weights are, of the names that the loaders list and of no others."""
    if "folder" in asked:
        return host.pipeline_folders().get(asked["folder"])
    return weight_files.path(KIND, "model_name", asked["model_name"]) if "model_name" in asked else None


def _number(asked: Mapping[str, str], name: str, absent: T) -> T:
    """A number of the type of ``absent``, which stands for one that was not given."""
    try:
        return type(absent)(asked.get(name, absent))
    except ValueError:
        raise InputError(f"{name}={asked[name]!r} is not a number") from None


@lru_cache(maxsize=16)
def _stored(
    path: Path, changed: int, dtype: torch.dtype, unpack: bool
) -> tuple[TransformerConfig, Weights, VAEConfig] | None:
    """Sizes from headers alone, read again when the file has changed; None of a file that is none, which its loader
    says better."""
    try:
        return stored.read(_pair(path) or path, dtype, unpack=unpack)
    except WeightsError:
        return None


def _pair(path: Path) -> Pair | None:
    """Both experts of a folder; of a file nothing beside it is taken, since its loader does not."""
    return find_pair(path) if path.is_dir() else None
