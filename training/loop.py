"""One resumable training loop for all parts of the nano model.

A curve is a learning rate that rises, stays and falls to nothing within a given time. What a step sees depends only on
the curve and the step's number, so a run that was killed goes on from its last checkpoint with the very batches it
would have seen; the next curve goes on from the averaged weights of the one before. Weights are kept in float32, the
arithmetic runs in bfloat16 where the machine is faster at it, an exponential moving average is what is shipped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number to (loss, figures to log)."""

STEPS_A_CURVE = 1_000_000  # keeps the seeds of curves apart
TRIAL = 256  # rows of the matrices that tell whether bfloat16 pays


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the curves of a part share; ``warmup`` in steps, ``checkpoint_every`` in seconds."""

    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    average: float = 0.999
    clip: float = 1.0
    checkpoint_every: float = 180.0
    log_every: int = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Which curve of the part it is, counted from 0, and how long it lasts."""

    number: int
    seconds: float


def train(model: nn.Module, loss: Loss, recipe: Recipe, run: Path, curve: Curve, device: torch.device) -> None:
    """Train ``model`` along ``curve``; afterwards it holds the averaged weights.

    Args:
        model: on ``device``; those of its parameters that require a gradient are trained in place.
        loss: of a step.
        recipe: optimiser and bookkeeping.
        run: folder for ``state.pt`` (the checkpoint) and ``log.txt``. A finished curve returns at once.
        curve: time spent before the process was killed counts.
        device: of the arithmetic.
    """
    run.mkdir(parents=True, exist_ok=True)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    averaged = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimiser = torch.optim.AdamW(
        trained.values(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    step, spent = _resume(run / "state.pt", curve, trained, averaged, optimiser)
    saved, dtype = spent, fast_dtype(device)
    while spent < curve.seconds:
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate(step, spent / curve.seconds, recipe.warmup)
        torch.manual_seed(STEPS_A_CURVE * curve.number + step)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            value, figures = loss(STEPS_A_CURVE * curve.number + step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(trained.values(), recipe.clip)
        if torch.isfinite(norm):  # one bad batch must not end hours of work
            optimiser.step()
        _average(trained, averaged, min(recipe.average, (step + 1) / (step + 10)))
        step, spent = step + 1, spent + time.perf_counter() - began
        if step % recipe.log_every == 1 or spent >= curve.seconds:
            shown = " ".join(f"{name} {number:.4f}" for name, number in figures.items())
            line = f"curve {curve.number} step {step} at {spent:.0f} s loss {value.item():.4f} {shown}"
            with (run / "log.txt").open("a") as log:
                log.write(line + "\n")
            print(f"{run.name} {line}", flush=True)
        if spent - saved >= recipe.checkpoint_every or spent >= curve.seconds:
            saved = spent
            _save(run / "state.pt", curve.number, step, spent, trained, averaged, optimiser)
    _put(trained, averaged)


def rate(step: int, share: float, warmup: int) -> float:
    """Share of the learning rate after ``step`` steps and ``share`` of the curve's time: up, then half a cosine."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


@cache
def fast_dtype(device: torch.device) -> torch.dtype:
    """What matrices are multiplied in: bfloat16 on a GPU, and on a CPU that is faster at it than at float32."""
    if device.type != "cpu":
        return torch.bfloat16

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(TRIAL, TRIAL, dtype=dtype)
        matrix @ matrix
        began = time.perf_counter()
        matrix @ matrix
        return time.perf_counter() - began

    return min((torch.float32, torch.bfloat16), key=seconds)


def has_checkpoint(run: Path) -> bool:
    """Whether a part was trained at all."""
    return (run / "state.pt").exists()


def resumed(run: Path, model: nn.Module) -> bool:
    """Put the averaged weights of the last checkpoint into ``model``, if there is one; whether there was."""
    if not has_checkpoint(run):
        return False
    averaged = torch.load(run / "state.pt", weights_only=True, map_location="cpu")["averaged"]
    _put({name: parameter for name, parameter in model.named_parameters() if name in averaged}, averaged)
    return True


def next_curve(run: Path) -> int:
    """Number of the curve after the one that the last checkpoint is of."""
    if not has_checkpoint(run):
        return 0
    return torch.load(run / "state.pt", weights_only=True, map_location="cpu")["curve"] + 1


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


@torch.no_grad()
def _average(trained: dict[str, nn.Parameter], averaged: dict[str, Tensor], keep: float) -> None:
    torch._foreach_lerp_(list(averaged.values()), [trained[name].detach() for name in averaged], 1 - keep)


def _save(
    path: Path,
    curve: int,
    step: int,
    spent: float,
    trained: dict[str, nn.Parameter],
    averaged: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    state: dict[str, Any] = {
        "curve": curve,
        "step": step,
        "spent": spent,
        "model": {name: parameter.detach() for name, parameter in trained.items()},
        "averaged": averaged,
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _resume(
    path: Path,
    curve: Curve,
    trained: dict[str, nn.Parameter],
    averaged: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> tuple[int, float]:
    """Steps done and seconds spent of this curve; a new one begins with the averaged weights of the one before."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    for name, value in averaged.items():
        value.copy_(state["averaged"].get(name, value))  # the text encoder learns in the first curves alone
    if state["curve"] != curve.number:
        _put(trained, averaged)
        return 0, 0.0
    _put(trained, state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["spent"]
