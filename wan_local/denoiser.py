"""A model of a run: a transformer, its LoRAs, its guidance, and the timesteps it is for. A run has a list of them.

Wan2.1 does every step with one. Wan2.2 has two, and the timestep that the sampler gives chooses between them
(Wan-Video/Wan2.2 ``wan/image2video.py``: the high-noise expert from ``1000 * boundary`` on).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .approximations import Approximations
from .approximations.run import ApproximatedRun
from .attention import choose
from .attention.sparse import MIN_TOKENS, check_can_run
from .compiled import compile_blocks
from .errors import InputError
from .lora import Applied
from .model.nag import Nag
from .notices import tell
from .sampling import (
    ComesItself,
    Cond,
    GuidesItself,
    Model,
    Sampler,
    Sides,
    Velocity,
    forwards_of,
    model_sides,
    model_velocity,
)
from .weights.experts import HIGH, LOW, Pair, open_pair, timestep_of
from .weights.load import AnyPath, build_transformer, transformer_source

ALONE = (
    "the model is one of Wan2.2's two experts and does every step alone: it was trained for high noise or for low "
    "noise only, so expect a poor clip; Wan2.1 FLF2V does all steps with one model"
)

Bring = Callable[[Model, Model | None, int], None]
"""See :func:`velocity_of`; :meth:`wan_local.memory.stages.Turns.bring` is one."""


@dataclass(kw_only=True, slots=True)
class Denoiser:
    """One model of a run.

    Attributes:
        transformer: the model, here or on several GPUs.
        loras: those on it; None is none.
        guidance: its own guidance scale; None takes the run's.
        lowest, below: it is for timesteps ``lowest <= t < below``, of 0..1000.
        level: "high" or "low": which of two experts it is; None where it does every step.
    """

    transformer: Model
    loras: Applied | None = None
    guidance: float | None = None
    lowest: float = 0.0
    below: float = math.inf
    level: str | None = None

    @property
    def weights(self) -> nn.Module:
        """The transformer as a module, if its weights are in this process.

        Raises:
            InputError: they are on several GPUs, where they get their LoRAs when they start.
        """
        if not isinstance(self.transformer, nn.Module):
            raise InputError("this model is on several GPUs; give its LoRAs with it")
        return self.transformer

    def strengths(self, step: int) -> tuple[float, ...]:
        """Of those LoRAs that count in some steps only, in one step, from 0."""
        return () if self.loras is None else self.loras.strengths(step)

    def scale(self, guidance: float) -> float:
        """The guidance scale it works with in a run of ``guidance``."""
        return guidance if self.guidance is None else self.guidance

    def covers(self, timestep: float) -> bool:
        """Whether it is for this timestep, of 0..1000."""
        return self.lowest <= timestep < self.below


def load_denoisers(
    path: AnyPath, pair: Pair | None = None, *, compiled: bool = False, **options: Any
) -> list[Denoiser]:
    """The models of a run: one transformer, or the two experts of a pair.

    Args:
        path: of the one, as :func:`wan_local.weights.load_transformer` takes it.
        pair: of the two.
        compiled: compile their blocks, see :func:`wan_local.compiled.compile_blocks`.
        options: more of :func:`wan_local.weights.load_transformer`.

    Raises:
        WeightsError: as there, and as :func:`wan_local.weights.experts.check_pair`.
    """
    sources = (transformer_source(path),) if pair is None else open_pair(pair)
    transformers = [build_transformer(source, **options) for source in sources]
    if compiled:
        for transformer in transformers:
            compile_blocks(transformer)
    if pair is None:
        return [Denoiser(transformer=transformers[0])]
    high, low = transformers
    return pair_of(high, low, pair.boundary)


def pair_of(high: Model, low: Model, boundary: float, low_guidance: float | None = None) -> list[Denoiser]:
    """Two experts, the first for timesteps from ``1000 * boundary`` on; the other's guidance scale may be its own."""
    timestep = timestep_of(boundary)
    return [
        Denoiser(transformer=high, lowest=timestep, level=HIGH),
        Denoiser(transformer=low, below=timestep, level=LOW, guidance=low_guidance),
    ]


def velocity_of(
    denoisers: Sequence[Denoiser],
    conds: Sequence[Cond],
    guidance: float,
    bring: Bring | None = None,
    timesteps: Sequence[float] = (),
    approximated: ApproximatedRun | None = None,
) -> Velocity:
    """The guided velocity of a run: of the denoiser that each timestep is for.

    Args:
        denoisers: whose ranges cover every timestep.
        conds: under the prompt, then under the negative prompt; the second is not used where guidance is 1, but by nag.
        guidance: guidance scale of those that have none of their own.
        bring: called before each step with the transformer that is about to work, the one that comes after it if this
            is its last step, and how many forwards it has in a step.
        timesteps: of the whole run, if ``bring`` is to know what comes.
        approximated: what of this run is not calculated in full; None is all of it. A step that it has no forward for
            brings nothing.

    Raises:
        InputError: a guidance scale that is not a finite number.
    """
    if len(denoisers) == 1 and denoisers[0].transformer.config.is_expert:
        tell(ALONE)
    following: dict[float, float] = {}
    for timestep, after in pairwise(timesteps):
        following.setdefault(timestep, after)  # whole timesteps may repeat: then this step is not the last one

    def at(timestep: float) -> int:
        return next(index for index, each in enumerate(denoisers) if each.covers(timestep))

    working: int | None = None

    def comes(timestep: float, forwards: int) -> None:
        nonlocal working
        index = at(timestep)
        before, working, transformer = working, index, denoisers[index].transformer
        if index != before and isinstance(transformer, ComesItself):
            transformer.come()
        if bring is not None:
            then = at(following.get(timestep, timestep))
            following_model = denoisers[then].transformer if then != index else None
            bring(transformer, following_model, forwards * max(1, len(conds[0].windows)))

    scales = [each.scale(guidance) for each in denoisers]
    if approximated is not None:
        conds = _attending(denoisers, conds, approximated)
    given = [_conds_of(each, conds, scale, approximated) for each, scale in zip(denoisers, scales, strict=True)]
    if approximated is not None:
        asked = [at(timestep) for timestep in approximated.sampler.timesteps]
        approximated.begin(scales, asked, [denoisers[index].strengths(step) for step, index in enumerate(asked)])
        if approximated.options.needs_sides:
            sides = [
                _bringing(model_sides(each.transformer, own[: forwards_of(scale)]), comes)
                for each, own, scale in zip(denoisers, given, scales, strict=True)
            ]
            own_views = approximated.velocities(sides)
            return lambda latents, timestep: own_views[at(timestep)](latents, timestep)

    views = [
        model_velocity(each.transformer, own, scale) for each, own, scale in zip(denoisers, given, scales, strict=True)
    ]

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        index = at(timestep)
        comes(timestep, forwards_of(scales[index]))
        return views[index](latents, timestep)

    return velocity


def needs_negative(denoisers: Sequence[Denoiser], guidance: float, approximations: Approximations) -> bool:
    """Whether a run asks for anything under the negative prompt."""
    return bool(approximations.nag) or any(each.scale(guidance) != 1 for each in denoisers)


def approximated_run(
    approximations: Approximations, sampler: Sampler, denoisers: Sequence[Denoiser]
) -> ApproximatedRun | None:
    """What :func:`velocity_of` is given for one run; None where everything is calculated.

    Args:
        approximations: that were chosen.
        sampler: of the run, fresh.
        denoisers: of the run.
    """
    if approximations.exact:
        return None
    return ApproximatedRun(approximations, sampler, expert=denoisers[0].transformer.config.is_expert)


def check_run(approximations: Approximations, denoisers: Sequence[Denoiser], tokens: int, device: torch.device) -> None:
    """Raise :class:`InputError` where it is known before a run of so many tokens that a kernel can't be used. Models on
    several GPUs say themselves what their devices can't do."""
    if approximations.attention and not all(isinstance(each.transformer, GuidesItself) for each in denoisers):
        choose(approximations.attention)
    if approximations.sparse and tokens >= MIN_TOKENS:
        _check_sparse(approximations.sparse, denoisers, device)


def _check_sparse(tau: float, denoisers: Sequence[Denoiser], device: torch.device) -> None:
    for each in denoisers:
        here = None if isinstance(each.transformer, GuidesItself) else device
        check_can_run(tau, here, each.transformer.config.head_dim)


def _attending(denoisers: Sequence[Denoiser], conds: Sequence[Cond], approximated: ApproximatedRun) -> list[Cond]:
    """With the kernel that was chosen, and sparse attention where what a forward sees is long enough for it."""
    known, patch = conds[0].condition, denoisers[0].transformer.config.patch_size
    frames = max((window.stop - window.begin for window in conds[0].windows), default=known.shape[2])
    whose = "a window of this one" if conds[0].windows else "this one"
    sparse = approximated.sparse(frames * math.prod(known.shape[3:]) // math.prod(patch), whose)
    if sparse is not None:
        _check_sparse(sparse.tau, denoisers, known.device)
    return [replace(cond, sparse=sparse, attention=approximated.options.attention) for cond in conds]


def _conds_of(
    denoiser: Denoiser, conds: Sequence[Cond], scale: float, approximated: ApproximatedRun | None
) -> list[Cond]:
    """What one model of the run is given: its own condition, and the negative prompt where nag takes it."""
    own = [cond.of(denoiser.level == LOW) for cond in conds]
    if approximated is not None and approximated.options.nag and scale == 1:
        own[0] = replace(own[0], nag=Nag(text=own[-1].text, scale=approximated.options.nag))
    return own


def _bringing(sides: Sides, comes: Callable[[float, int], None]) -> Sides:
    """The same, with word before each forward that one comes."""

    def asked(latents: Tensor, timestep: float, count: int) -> list[Tensor]:
        comes(timestep, count)
        return sides(latents, timestep, count)

    return asked


def before_step(denoisers: Sequence[Denoiser], step: int) -> None:
    """Switch LoRAs that count in some steps only; ``step`` is from 0."""
    for each in denoisers:
        if each.loras is not None:
            each.loras.before_step(step)
