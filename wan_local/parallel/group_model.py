"""What the caller holds instead of a transformer: a group of GPUs that is asked once a step.

The caller keeps sampler, preview and stop, and no rank. Everything that stays the same over a run is sent once.
"""

from __future__ import annotations

import itertools
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..attention import choose as choose_attention
from ..attention.sparse import check_can_run
from ..config import TransformerConfig
from ..denoiser import Denoiser, pair_of
from ..errors import InputError, WanError
from ..model.nag import Nag
from ..ranks import GroupSpec, Limits, Pool, RankError, RankGroup
from ..sampling import Cond, Sides, Velocity
from . import experts
from .degrees import AUTO, Degrees
from .rank_model import DTYPES
from .ring import check_attention, check_sparse
from .setup import Setup, check, devices

Answer = TypeVar("Answer")

TARGET = ".parallel.rank_model:Rank"
TRIES = 3  # at a step whose run the ranks don't know any more

log = logging.getLogger("wan_local.parallel")
_numbers = itertools.count(1)
_latest: weakref.WeakKeyDictionary[RankGroup, int] = weakref.WeakKeyDictionary()  # run that began last


class GroupTransformer:
    """Stands in a pipeline where a transformer would; see :func:`wan_local.sampling.model_velocity`.

    Args:
        setup: what runs where.
        pool: keeps the ranks between runs.
        stop: asked several times a second while a step runs; to stop it returns True, or raises.
        before_run: called at the beginning of every run, to make room on the GPUs.
        when_up: called in every run once its ranks are there.
        guidance: scale of the runs to come, if it is known: only what is said about the split depends on it.
        keep: whether ranks stay when a run is over; False gives the GPUs back at once.
        limits: how long anything may take; the default follows what steps take.

    Attributes:
        degrees: the split of a run, with guidance unless it is known to be 1.
        why: the split, and why it was taken.

    Raises:
        InputError: a setup that can't be, see :func:`wan_local.parallel.setup.check`.
        WeightsError: weights or LoRAs that are none of this model's.
    """

    def __init__(
        self,
        setup: Setup,
        pool: Pool,
        stop: Callable[[], object] | None = None,
        before_run: Callable[[], None] | None = None,
        when_up: Callable[[], None] | None = None,
        *,
        guidance: float | None = None,
        keep: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.config = check(setup)
        self._limits = limits or Limits()
        self.setup, self._pool, self._stop, self._keep = setup, pool, stop, keep
        self._before_run, self._when_up, self._guidance = before_run, when_up, guidance
        self.devices = devices(setup)
        self.degrees, self.why = self._explained()
        self._spec = self._make_spec()
        if setup.fsdp and setup.device == "cuda" and self._spec.chosen_backend == "gloo":
            raise InputError("fsdp on CUDA GPUs needs NCCL, and these can't use it; run without fsdp")

    def _explained(self) -> tuple[Degrees, str]:
        """The split of the runs to come, and what is true to say before the first."""
        degrees, why = self.setup.split(self.config, guided=self._guidance != 1)
        if self._guidance is None and degrees.cfg == 2:
            why += f"; at guidance 1 {self._without_guidance(degrees)}"
        if self.setup.low:
            why += f"; {experts.told(self.setup, DTYPES[self.setup.dtype], self.devices)}"
        return degrees, f"{why}; this runs on the CPU" if self.setup.device == "cpu" else why

    def _without_guidance(self, degrees: Degrees) -> str:
        try:
            other, why = self.setup.split(self.config, guided=False)
        except InputError as error:
            return f"it can't be done: {error}"
        return why if other != degrees else "half of the GPUs repeat the work of the other half"

    def start(self) -> RankGroup:
        """The ranks, with the weights loaded: those of the run before where nothing but the split changed."""
        return self._pool.lease(self.setup.key(), self._fresh, self._stop)

    def _fresh(self) -> RankGroup:
        """Ranks to be started, where those before are gone; :class:`OutOfMemory` where the host has too little room."""
        experts.check_room(self.setup, DTYPES[self.setup.dtype], self.devices)
        return RankGroup(self._spec)

    def guided_velocity(self, conds: Sequence[Cond], guidance: float, expert: int = 0) -> Velocity:
        """As :func:`wan_local.sampling.model_velocity`; starts the ranks and sends them cond and uncond.

        ``expert`` is 1 for the low-noise one of two.

        A run ends when its velocity is not held any more: the ranks then forget it and give memory back.

        Raises:
            InputError: guidance that is not a finite number.
            RankError: a rank failed; the next run starts fresh ones.
        """
        if not math.isfinite(guidance):
            raise InputError(f"guidance={guidance!r} can't be used; give a number such as 5.5, or 1 for none")
        return self._begin(conds, float(guidance), expert, guided=guidance != 1).velocity

    def sides(self, conds: Sequence[Cond], expert: int = 0) -> Sides:
        """As :func:`wan_local.sampling.model_sides`; else as :meth:`guided_velocity`."""
        return self._begin(conds, None, expert, guided=len(conds) > 1).sides

    def _begin(self, conds: Sequence[Cond], guidance: float | None, expert: int, *, guided: bool) -> _Run:
        degrees, why = self.setup.split(self.config, guided=guided)
        check_sparse(conds[0].sparse, degrees)
        check_attention(conds[0].attention or self.setup.attention, degrees)
        if not self.setup.ray_address:
            self._check_kernels(conds[0])
        if not guided and degrees.cfg == 2:
            log.warning("%s", why)
        if self._before_run is not None:
            self._before_run()
        group = self.start()
        if self._when_up is not None:
            self._when_up()
        run = _Run(group, conds, guidance, degrees, expert, self._stop)
        after = None if self._keep else self._pool.close
        weakref.finalize(run, _end, group, run.number, run.state, after).atexit = False  # the pool sees to that
        run.begin()
        return run

    def _check_kernels(self, cond: Cond) -> None:
        """Raise :class:`InputError` for what the GPUs of this machine can't do; found by a rank, it would end them."""
        if cond.attention:
            choose_attention(cond.attention)
        if cond.sparse is not None:
            for device in dict.fromkeys(self.devices):
                check_can_run(cond.sparse.tau, torch.device(device), self.config.head_dim)

    def statistics(self) -> list[dict[str, float]]:
        """What every rank counted since its start, see :meth:`wan_local.parallel.rank_model.Rank.statistics`."""
        return self.start().call("statistics")

    def with_lora(self, path: str, strength: float) -> GroupTransformer:
        """The same with one more LoRA, on both of two experts; other ranks, since it is merged there."""
        hooks = (self._stop, self._before_run, self._when_up)
        same: dict[str, Any] = {"guidance": self._guidance, "keep": self._keep, "limits": self._limits}
        return GroupTransformer(self.setup.with_lora(path, strength), self._pool, *hooks, **same)

    def _make_spec(self) -> GroupSpec:
        setup = self.setup
        weights = {
            "path": setup.path, "dtype": setup.dtype, "attention": setup.attention, "fsdp": setup.fsdp,
            "unpack": setup.unpack, "float8_matmul": setup.float8_matmul, "compiled": setup.compiled,
            "loras": _loras(setup.loras), "low": setup.low, "low_loras": _loras(setup.low_loras), "turns": setup.turns,
        }  # fmt: skip
        return GroupSpec(
            target=TARGET,
            devices=self.devices,
            kwargs={"backend": setup.backend, "weights": weights},
            launcher="ray" if setup.ray_address else "local",
            threads=1 if setup.device == "cpu" else None,
            limits=self._limits,
            ray=setup.ray,
        )


class GroupExpert:
    """One of two experts that the same ranks hold."""

    def __init__(self, group: GroupTransformer, expert: int) -> None:
        self._group, self._expert = group, expert

    @property
    def config(self) -> TransformerConfig:
        return self._group.config

    def guided_velocity(self, conds: Sequence[Cond], guidance: float) -> Velocity:
        """As :meth:`GroupTransformer.guided_velocity`."""
        return self._group.guided_velocity(conds, guidance, self._expert)

    def sides(self, conds: Sequence[Cond]) -> Sides:
        """As :meth:`GroupTransformer.sides`."""
        return self._group.sides(conds, self._expert)


def denoisers_of(group: GroupTransformer) -> list[Denoiser]:
    """The models of a run on these ranks: one, or two experts."""
    setup = group.setup
    if not setup.low:
        return [Denoiser(transformer=group)]
    return pair_of(GroupExpert(group, 0), GroupExpert(group, 1), setup.boundary, setup.low_guidance)


class _Run:
    """A velocity on the GPUs: one run among those that the ranks may know.

    Args:
        group: ranks that are up.
        conds, guidance, degrees, expert: of :meth:`wan_local.parallel.rank_model.Rank.begin`.
        stop: as in :class:`GroupTransformer`.
    """

    def __init__(
        self,
        group: RankGroup,
        conds: Sequence[Cond],
        guidance: float | None,
        degrees: Degrees,
        expert: int,
        stop: Callable[[], object] | None,
    ) -> None:
        self.number = next(_numbers)
        self.state = {"well": True}  # shared with what ends the run, which must not hold the run
        sent = [{name: _host(value) for name, value in _fields(cond).items()} for cond in conds]
        self._beginning = (sent, guidance, self.number, asdict(degrees), expert)
        self._group, self._stop, self._step = group, stop, 0

    def begin(self) -> None:
        _latest[self._group] = self.number
        self._ask(self._group.call, "begin", *self._beginning, stage="begin")

    def velocity(self, latents: Tensor, timestep: float) -> Tensor:
        """The guided velocity of a step."""
        return self._asked("velocity", latents, float(timestep))

    def sides(self, latents: Tensor, timestep: float, count: int) -> list[Tensor]:
        """The velocities of a step under ``count`` prompts."""
        return list(self._asked("sides", latents, float(timestep), count))

    def _asked(self, method: str, latents: Tensor, *args: float) -> Tensor:
        self._step += 1
        stage, step = f"step {self._step}", (method, _host(latents), *args, self.number)
        with self._group.in_use(self._stop):
            for _ in range(TRIES):
                found = self._ask(self._group.call_first, *step, stage=stage)
                if found is not None:
                    velocity: Tensor = found
                    return velocity.to(latents.device)
                self.begin()  # so many other runs have begun since that the ranks have forgotten this one
        raise RankError("other runs keep pushing this one out; run fewer at once", stage=stage)

    def _ask(self, call: Callable[..., Answer], *args: object, **options: Any) -> Answer:
        try:
            return call(*args, stop=self._stop, **options)
        except BaseException:
            self.state["well"] = False
            raise


def _end(group: RankGroup, number: int, state: dict[str, bool], after: Callable[[], None] | None) -> None:
    """What is done when nobody holds a run any more; in the thread that let it go, so never in a later run's way."""
    if _latest.get(group) != number:
        return
    try:
        if after is not None:
            after()
        elif group.alive:
            if state["well"]:  # after a stop or a failure nobody waits for the ranks
                group.call("end", number, stage="end", wait=0)
            group.free_memory()
    except WanError as error:  # the run itself is over and well; the next one will say what is wrong
        log.warning("the GPUs could not be given back: %s", error)


def _loras(given: tuple[tuple[str, float], ...]) -> list[dict[str, object]]:
    return [{"path": path, "strength": strength} for path, strength in given]


def _fields(cond: Cond) -> dict[str, Any]:
    """Of one expert: what the low-noise one is given has taken the place of ``condition``."""
    names = ("condition", "text", "image", "image_row", "riflex", "windows", "nag", "sparse", "attention")
    return {name: getattr(cond, name) for name in names}


def _host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value.to("cpu") if isinstance(value, Nag) else value


__all__ = ["AUTO", "GroupTransformer", "Setup", "denoisers_of"]
