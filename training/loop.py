"""One resumable training loop for all parts of the nano model.

A run is a list of stages; the batch of a step depends only on the stage's seed and the step number, so a run that was
killed goes on from its last checkpoint with the very batches it would have seen. Weights are kept in float32, the
arithmetic runs in bfloat16 under autocast, an exponential moving average is what is shipped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number to (loss, figures to log)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A stretch of training with one kind of batch."""

    name: str
    steps: int
    loss: Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What every stage of a run shares."""

    learning_rate: float
    warmup: int = 200
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    average: float = 0.999
    clip: float = 1.0
    checkpoint_every: int = 250
    log_every: int = 50


def train(model: nn.Module, stages: list[Stage], recipe: Recipe, run: Path) -> None:
    """Train ``model`` through ``stages``; afterwards it holds the averaged weights.

    Args:
        model: its parameters are trained in place.
        stages: run one after the other under one learning-rate curve (warm-up, then half a cosine).
        recipe: optimiser and bookkeeping.
        run: folder for ``state.pt`` (the checkpoint) and ``log.txt``. A finished run returns at once.
    """
    run.mkdir(parents=True, exist_ok=True)
    averaged = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    start = _resume(run / "state.pt", model, averaged, optimiser)
    total, first = sum(stage.steps for stage in stages), 0
    for stage in stages:
        for step in range(max(start, first), first + stage.steps):
            began = time.perf_counter()
            rate = recipe.learning_rate * _rate(step, total, recipe.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, figures = stage.loss(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            if torch.isfinite(norm):  # one bad batch must not end hours of work
                optimiser.step()
            _average(model, averaged, min(recipe.average, (step + 1) / (step + 10)))
            if step % recipe.log_every == 0 or step == total - 1:
                shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
                line = f"{stage.name} step {step} loss {loss.item():.4f} {shown} {time.perf_counter() - began:.2f} s"
                with (run / "log.txt").open("a") as log:
                    log.write(line + "\n")
                print(line, flush=True)
            if (step + 1) % recipe.checkpoint_every == 0 or step == total - 1:
                _save(run / "state.pt", step + 1, model, averaged, optimiser)
        first += stage.steps
    model.load_state_dict(averaged, strict=False)


def _rate(step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@torch.no_grad()
def _average(model: nn.Module, averaged: dict[str, Tensor], keep: float) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    torch._foreach_lerp_([averaged[name] for name in names], [p.detach() for p in parameters], 1 - keep)


def _save(
    path: Path, step: int, model: nn.Module, averaged: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    state = {"step": step, "model": model.state_dict(), "averaged": averaged, "optimiser": optimiser.state_dict()}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _resume(path: Path, model: nn.Module, averaged: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for name, value in state["averaged"].items():
        averaged[name].copy_(value)
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]
