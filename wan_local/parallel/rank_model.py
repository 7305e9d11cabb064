"""What one rank does: holds the transformer, remembers a few runs, and answers with a velocity once a step.

Made and called by name in a process of its own (:mod:`wan_local.ranks`) whose torch.distributed group is up. Arguments
and results are tensors, numbers, strings, lists and dicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import notices
from ..attention import Attend, Sparse
from ..attention import choose as choose_attention
from ..errors import InputError
from ..free_memory import give_back
from ..memory import Offload
from ..model.nag import Nag
from ..model.sequence import Sequence, Whole
from ..ranks import RankInfo
from ..ranks.messages import Fields
from ..sampling import Cond, Velocity, cond_velocity
from ..sampling.guidance import combine
from .collectives import Groups, Traffic
from .degrees import Degrees, check
from .experts import take_turns
from .ring import check_attention, check_sparse
from .sequence import ShardedSequence

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RUNS = 4  # that are remembered; the text and images of one are some tens of megabytes
WHOLE = (
    ".cross_attn.k",
    ".cross_attn.v",
    ".cross_attn.k_img",
    ".cross_attn.v_img",
)  # never sharded


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    """A split that was used: its groups, and who has which tokens."""

    groups: Groups
    sequence: Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What stays the same over a run: cond and uncond, or the one that this GPU does; whether it is one of the two,
    which another GPU has; the guidance scale, None where the caller combines them; the split."""

    views: list[Velocity]
    apart: bool
    guidance: float | None
    split: _Split
    expert: int


class Rank:
    """One of the GPUs.

    Args:
        info: which rank this is, as :mod:`wan_local.ranks` gives it.
        cfg, ulysses, ring: the split of runs that name none, see :class:`wan_local.parallel.degrees.Degrees`.
        backend: "own" or "yunchang", what carries attention over the GPUs.
        weights: arguments of :meth:`load`; None loads nothing yet.
    """

    def __init__(
        self,
        info: RankInfo,
        *,
        cfg: int = 1,
        ulysses: int = 1,
        ring: int = 1,
        backend: str = "own",
        weights: dict[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(info.device)
        self.degrees = Degrees(cfg=cfg, ulysses=ulysses, ring=ring)
        self._backend, self._attention = backend, "auto"
        self.models: list[Any] = []
        self._stays: list[Offload] = []  # of the models, where they take turns
        self._at_work: int | None = None
        self._sharded = False
        self._timeout = timedelta(seconds=info.timeout)
        self._traffic = Traffic()
        self._splits: dict[Degrees, _Split] = {}
        self._runs: dict[int, _Run] = {}
        self._current: _Run | None = None
        self._seconds = 0.0
        self._loads = 0
        self._measured: dict[str, float] = {}
        if weights is not None:
            self.load(**weights)

    def load(
        self,
        path: str,
        dtype: str = "bfloat16",
        attention: str = "auto",
        fsdp: bool = False,
        loras: list[dict[str, Any]] | None = None,
        unpack: bool = False,
        float8_matmul: bool = False,
        compiled: bool = False,
        low: str = "",
        low_loras: list[dict[str, Any]] | None = None,
        turns: bool | None = None,
    ) -> dict[str, float]:
        """Read the weights; what they take on this GPU, and how long it took.

        Args:
            path: as for :func:`wan_local.weights.load_transformer`.
            dtype: of the weights, "float32", "bfloat16" or "float16"; packed ones are calculated with in it.
            attention: kernel, see :func:`wan_local.attention.choose`.
            fsdp: shard the weights over all GPUs.
            loras: ``path`` and ``strength`` each.
            unpack, float8_matmul: of packed weights, see :func:`wan_local.weights.load_transformer`.
            compiled: compile the blocks, see :func:`wan_local.compiled.compile_blocks`; not together with fsdp.
            low, low_loras: ``path`` and ``loras`` of the low-noise expert of two, which :meth:`begin` calls 1.
            turns: whether two experts wait in host memory and come to the GPU in turn; None where both don't fit.
                Weights that fsdp shards always stay.

        Raises:
            InputError: LoRAs together with fsdp, and the like.
            WeightsError: as for :func:`wan_local.weights.load_transformer`.
        """
        began = time.perf_counter()
        if turns is None:
            turns = bool(low) and take_turns(path, low, DTYPES[dtype], unpack, self.device)
        turns = turns and bool(low) and not fsdp
        read_one = partial(
            self._read, dtype=DTYPES[dtype], attend=choose_attention(attention), fsdp=fsdp, unpack=unpack,
            float8_matmul=float8_matmul, compiled=compiled, home=torch.device("cpu") if turns else self.device,
        )  # fmt: skip
        places = [(path, loras), (low, low_loras)] if low else [(path, loras)]
        read = [read_one(each, own or []) for each, own in places]
        self.models, self._attention, self._loads = [model for model, _ in read], attention, self._loads + 1
        self._stays = [Offload(model, self.device) for model in self.models] if turns else []
        self._at_work, self._sharded = None, fsdp
        self._measured = {name: sum(counted[name] for _, counted in read) for name in ("bytes", "full")}
        self._measured["seconds"] = time.perf_counter() - began
        return self._measured

    def _read(
        self,
        path: str,
        loras: list[dict[str, Any]],
        *,
        dtype: torch.dtype,
        attend: Attend,
        fsdp: bool,
        unpack: bool,
        float8_matmul: bool,
        compiled: bool,
        home: torch.device,
    ) -> tuple[Any, dict[str, float]]:
        """One transformer, and the bytes that it takes here and in all."""
        from .. import lora
        from ..compiled import compile_blocks
        from ..quantised import Linear, parameter_shapes
        from ..weights import load_transformer
        from .fsdp import load_sharded

        if fsdp:
            if loras:
                raise InputError("LoRAs can't be put on weights that fsdp shards; run without fsdp or without them")
            model, measured = load_sharded(path, dtype, self.device, attend)
        else:
            with notices.listening(lambda text: None):  # the driver said it, of the same file
                model = load_transformer(path, dtype, home, attend=attend, unpack=unpack, float8_matmul=float8_matmul)
            shapes = parameter_shapes(model)
            uses = [lora.Use(lora=lora.read(one["path"], shapes), strength=float(one["strength"])) for one in loras]
            lora.apply(model, uses, merging=home == self.device)  # else what it changes would fill the host
            if compiled:
                compile_blocks(model)
            size = sum(value.nbytes for value in model.parameters())
            measured = {"bytes": size, "full": size}
        for name, layer in model.named_modules():
            if isinstance(layer, Linear) and not name.endswith(WHOLE):
                layer.reduce_amax = self._largest  # else a GPU's share of the tokens would decide how they are rounded
        return model, measured

    def begin(
        self,
        conds: list[Fields],
        guidance: float | None,
        run: int = 0,
        split: dict[str, int] | None = None,
        expert: int = 0,
    ) -> None:
        """Remember everything that stays the same over a run. A few runs can be under way; the oldest is forgotten.

        Args:
            conds: fields of :class:`wan_local.sampling.Cond` each: under the prompt, then under the negative prompt
                unless guidance is 1.
            guidance: guidance scale; None to be asked by :meth:`sides`, which combines nothing.
            run: its number, which every step names.
            split: fields of :class:`wan_local.parallel.degrees.Degrees`; None for the one this was made with.
            expert: which of the models that were loaded.

        Raises:
            InputError: heads that the split does not divide, or a kernel that it can't use.
        """
        found = self._split(self.degrees if split is None else Degrees(**split))
        conds = conds[:1] if guidance == 1 else conds
        if apart := found.groups.degrees.cfg == 2 and len(conds) == 2:
            conds = [conds[found.groups.cfg.index]]
        model: Any = partial(self.models[expert], sequence=found.sequence)
        given = [_cond(cond) for cond in conds]
        for cond in given:
            check_sparse(cond.sparse, found.groups.degrees)
            check_attention(cond.attention or self._attention, found.groups.degrees)
        views = [cond_velocity(model, cond.to(self.device)) for cond in given]
        self._runs.pop(run, None)
        self._runs[run] = _Run(views=views, apart=apart, guidance=guidance, split=found, expert=expert)
        while len(self._runs) > RUNS:
            del self._runs[next(iter(self._runs))]

    @torch.no_grad()
    def velocity(self, latents: Tensor, timestep: float, run: int = 0) -> Tensor | None:
        """The guided velocity of latents ``[B, C, T, h, w]``, float32 on the CPU; None on every rank but the first, and
        where the run is not known (any more)."""

        def combined(found: list[Tensor], guidance: float | None) -> Tensor:
            if len(found) == 1 or guidance is None:
                return found[0]
            return combine(found[0], found[1], guidance)

        return self._step(latents, timestep, run, 2, combined)

    @torch.no_grad()
    def sides(self, latents: Tensor, timestep: float, count: int, run: int = 0) -> Tensor | None:
        """As :meth:`velocity`, under each of ``count`` prompts and not combined: ``[count, B, C, T, h, w]``. GPUs that
        have none of these prompts do nothing, or where fsdp shards the weights their part in gathering them."""
        return self._step(latents, timestep, run, count, lambda found, _: torch.stack(found))

    def _step(
        self,
        latents: Tensor,
        timestep: float,
        run: int,
        count: int,
        put_together: Callable[[list[Tensor], float | None], Tensor],
    ) -> Tensor | None:
        """What is made of the velocities under ``count`` prompts, or as many as there are."""
        self._current = self._runs.get(run)
        if self._current is None:
            return None
        began = time.perf_counter()
        self._bring(self._current.expert)
        cfg, views = self._current.split.groups.cfg, self._current.views
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        idle = cfg.size == 2 and count == 1 and cfg.index == 1 and self._current.apart  # this one has uncond
        if idle and not self._sharded:
            return None  # with weights that fsdp shards its forward is the others' only way to its share of each block
        latents = latents.to(self.device)
        found = [view(latents, timestep) for view in views[:count]]
        if cfg.size == 2 and count == 2 and self._current.apart:
            found = cfg.gather(found[0])
        result = put_together(found, self._current.guidance)
        velocity = result.float().cpu() if first else None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # only the first rank has waited for its GPU by now
        self._seconds += time.perf_counter() - began
        return velocity

    def end(self, run: int = 0) -> None:
        """Forget a run, and those that began before it: the one of the other expert, or of a caller that is gone. One
        that is still under way begins again at its next step."""
        self._current = None
        if run in self._runs:
            began = list(self._runs)
            for before in began[: began.index(run) + 1]:
                del self._runs[before]
        if not self._runs:
            self._bring(None)

    def rest(self) -> None:
        """Leave the GPU to others until the next step, as far as experts that take turns do."""
        self._bring(None)

    def _bring(self, expert: int | None) -> None:
        """Have this one of two experts that take turns on the GPU, and the other not; None is neither."""
        if not self._stays or expert == self._at_work:
            return
        if self._at_work is not None:
            self._stays[self._at_work].close()
            give_back(self.device)
        self._at_work = None
        if expert is not None:
            self._stays[expert].open(0)
        self._at_work = expert

    def statistics(self) -> dict[str, float]:
        """Since the start: bytes sent, seconds in exchanges, seconds in steps, how often weights were read, what they
        take here and in all, and how long reading took."""
        traffic = self._traffic
        counted = {"sent": traffic.sent, "exchanging": traffic.seconds, "steps": self._seconds, "loads": self._loads}
        return counted | {f"weights {key}": value for key, value in self._measured.items()}

    def _split(self, degrees: Degrees) -> _Split:
        """The groups of a split; all ranks ask for the same one at the same time, and it is made once."""
        if degrees not in self._splits:
            check(degrees, self.models[0].config.num_heads, degrees.gpus)
            check_attention(self._attention, degrees)
            groups = Groups(degrees, self._timeout, self._traffic)
            self._splits[degrees] = _Split(groups=groups, sequence=self._sequence(groups))
        return self._splits[degrees]

    def _sequence(self, groups: Groups) -> Sequence:
        if groups.degrees.shards == 1:
            return Whole()
        if self._backend == "yunchang":
            from .yunchang_backend import YunchangSequence

            return YunchangSequence(groups)
        return ShardedSequence(groups)

    def _largest(self, value: Tensor) -> Tensor:
        """The largest among all GPUs that share the tokens of the step under way."""
        return value if self._current is None else self._current.split.groups.sequence.largest(value)


def _cond(fields: Fields) -> Cond:
    """What the driver sent of one."""
    nag, sparse = fields.get("nag"), fields.get("sparse")
    made = {"nag": None if nag is None else Nag(**nag), "sparse": None if sparse is None else Sparse(**sparse)}
    return Cond(**fields | made)
