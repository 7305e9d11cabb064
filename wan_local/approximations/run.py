"""One run under approximations: what stands between the sampling loop and the models. Read after ``options.py``.

Everything is decided here, where the sampler is, before a model is asked. Several GPUs get no say and need none: a step
that is skipped is one that they are not asked for, and all of them are asked for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..attention.sparse import MIN_TOKENS, OPTION, Sparse
from ..notices import tell
from ..progress import OnProgress, Progress
from ..sampling import Sampler, Sides, Velocity
from ..sampling.guidance import combine, forwards_of
from ..words import counted
from .cfg_zero import combine_scaled, steps_at_rest
from .easycache import EasyCache
from .guidance_reuse import GuidanceReuse
from .magcache import WAN21, WAN22, magcache, ratios_on
from .options import EASYCACHE, LIST, MAGCACHE, OFF, Approximations
from .presets import named
from .skip_list import skip_list
from .straight_line import StraightLine
from .window import FEWEST, LOWEST, after_starts, window_of


class ApproximatedRun:
    """One run: its plan, and what it has saved so far. Made anew for each, so that nothing is left of the one before.

    Args:
        options: what was chosen.
        sampler: of the run, fresh.
        expert: whether the models are Wan2.2's, whose blocks another curve was measured on.
        min_tokens: of clips that sparse attention is for.
    """

    def __init__(
        self, options: Approximations, sampler: Sampler, *, expert: bool = False, min_tokens: int = MIN_TOKENS
    ) -> None:
        self.options, self.sampler, self._expert, self._min_tokens = options, sampler, expert, min_tokens
        self.window = window_of(sampler.sigmas)
        self.plan: frozenset[int] = frozenset()
        self.at_rest = 0
        self.skipped = self.forwards = self.all_forwards = 0
        self.sparse_steps = 0
        self._scales: Sequence[float] = ()
        self._step = -1

    def begin(self, scales: Sequence[float], experts: Sequence[int], loras: Sequence[object] | None = None) -> None:
        """Make the plan, and say which options have nothing to do in this run.

        Args:
            scales: guidance scale of each model of the run.
            experts: for each step which of them it asks.
            loras: for each step what of its LoRAs counts there; None is the same in all. Where that changes, the model
                is another one.
        """
        options, self._scales = self.options, scales
        models = list(zip(experts, loras or [None] * len(experts), strict=True))
        self.window = after_starts(self.window, models)
        if options.skip == LIST:
            self.plan = skip_list(self.window, models, options.most_in_a_row)
        elif options.skip == MAGCACHE:
            ratios = ratios_on(self.sampler.sigmas, WAN22 if self._expert else WAN21)
            self.plan = magcache(ratios, self.window, models, options.threshold, options.most_in_a_row)
        if options.cfg_zero and scales[experts[0]] != 1:
            self.at_rest = steps_at_rest(len(experts))
        self._tell_of_what_does_nothing()

    def sparse(self, tokens: int, whose: str = "this one") -> Sparse | None:
        """Sparse attention of a forward of so many tokens, and in which steps. None for none, which is said where it
        was asked for; ``whose`` is what has the tokens in that."""
        if not self.options.sparse:
            return None
        sparse = Sparse(tau=self.options.sparse, min_tokens=self._min_tokens).over(self.sampler.timesteps)
        self.sparse_steps = sum(each < sparse.below for each in self.sampler.timesteps) if sparse.is_for(tokens) else 0
        if self.sparse_steps:
            return sparse
        why = f"finds no step of {self.sampler.num_steps} behind the first fifth; use more steps"
        if not sparse.is_for(tokens):
            why = f"is for clips of {sparse.min_tokens:,} tokens or more, and {whose} has {tokens:,}"
        tell(f"{OPTION}={sparse.tau:g} does nothing: it {why}")
        return None

    def velocities(self, sides: Sequence[Sides]) -> list[Velocity]:
        """The velocity of each model of the run, of which the loop asks one in each step."""
        return [_View(self, each, scale) for each, scale in zip(sides, self._scales, strict=True)]

    def telling(self, on_progress: OnProgress) -> OnProgress:
        """The same, told of the steps that were skipped."""

        def told(progress: Progress) -> None:
            on_progress(replace(progress, skipped=self.skipped) if progress.stage == "sample" else progress)

        return told

    def told(self) -> str:
        """What was chosen and what it has saved, for a person."""
        skipped = f"{self.skipped} of {counted(self.sampler.num_steps, 'step')} skipped"
        saved = [skipped] if self.options.skip != OFF else []
        if self.options.sparse:
            saved.append(f"attention sparse in {self.sparse_steps} of {counted(self.sampler.num_steps, 'step')}")
        if self.forwards < self.all_forwards:
            saved.append(f"{self.forwards} of {counted(self.all_forwards, 'forward')}")
        return ": ".join(filter(None, (named(self.options), ", ".join(saved))))

    def next_step(self) -> int:
        """The number of the step that begins; the loop asks once for each."""
        self._step += 1
        return self._step

    def _tell_of_what_does_nothing(self) -> None:
        """Options that are off in this run, and why."""
        options, steps, scales = self.options, self.sampler.num_steps, self._scales
        guided = [name for name in ("guidance_reuse", "guidance_highest", "guidance_lowest", "cfg_zero")
                  if name in options.chosen()]  # fmt: skip
        if guided and all(scale == 1 for scale in scales):
            tell(f"{' and '.join(guided)} would do nothing at guidance 1 and {_is(guided)} off")
        if options.nag and all(scale != 1 for scale in scales):
            tell(f"nag is for guidance 1 and is off at {scales[0]:g}, where the negative prompt counts anyway")
        idle = not any(self.window) if options.skip == EASYCACHE else not self.plan
        if options.skip != OFF and idle:
            tell(
                f"skip {options.skip} finds no step of {steps} that may be skipped, and is off: none of fewer than "
                f"{FEWEST} is, nor the first fifth, nor those below sigma {LOWEST:g}; use more steps or a higher shift"
            )
        if options.guidance_reuse > 1 and not any(self.window):
            tell(f"guidance_reuse finds no step of {steps} in the middle of the schedule, and is off; use more steps")


class _View:
    """One model of the run: the velocity of each of its steps, asked for or not."""

    def __init__(self, run: ApproximatedRun, sides: Sides, scale: float) -> None:
        options = run.options
        self._run, self._sides, self._scale = run, sides, scale
        self._combine = combine_scaled if options.cfg_zero else combine
        self._reuse = GuidanceReuse(options.guidance_reuse)
        self._line = StraightLine()
        self._easycache = EasyCache(options.threshold) if options.skip == EASYCACHE else None

    def __call__(self, latents: Tensor, timestep: float) -> Tensor:
        run = self._run
        step = run.next_step()
        run.all_forwards += forwards_of(self._scale)
        if step < run.at_rest:
            return torch.zeros_like(latents)
        if step and step == run.at_rest:
            run.sampler.restart()  # what it remembers of steps that did nothing is no estimate of the clip
        scale = self._scale_at(run.sampler.sigmas[step])
        count = forwards_of(scale)
        found = self._guess(step, latents, count) if run.window[step] else None
        if found is not None:
            run.skipped += 1
        else:
            found = self._reuse.sides(partial(self._ask, latents, timestep), count, run.window[step])
            self._saw(step, latents, found)
        return found[0] if count == 1 else self._combine(found[0], found[1], scale)

    def _scale_at(self, sigma: float) -> float:
        options = self._run.options
        return self._scale if options.guidance_lowest <= sigma <= options.guidance_highest else 1.0

    def _ask(self, latents: Tensor, timestep: float, count: int) -> list[Tensor]:
        self._run.forwards += count
        return [velocity.float() for velocity in self._sides(latents, timestep, count)]

    def _guess(self, step: int, latents: Tensor, count: int) -> list[Tensor] | None:
        if self._easycache is not None:
            return self._easycache.guess(latents, count)
        return self._line.at(self._run.sampler.sigmas[step], count) if step in self._run.plan else None

    def _saw(self, step: int, latents: Tensor, velocities: list[Tensor]) -> None:
        if self._easycache is not None:
            self._easycache.saw(latents, velocities)
        elif self._run.plan:
            self._line.saw(self._run.sampler.sigmas[step], velocities)


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
