"""What one rank does: holds the transformer, remembers a run, and answers with a velocity once a step.

Made and called by name in a process of its own (``ranks/``) whose torch.distributed group is up. Arguments and results
are tensors, numbers, strings, lists and dicts.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..attention import choose as choose_attention
from ..errors import InputError
from ..sampling import Side, prompted_velocity
from ..sampling.guidance import combine
from .collectives import Groups
from .degrees import Degrees, check
from .sequence import Shared

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Rank:
    """One of the cards.

    Args:
        place: :class:`wan_local.parallel.ranks.Place`, of which the device is used.
        cfg, ulysses, ring: the split, see :class:`wan_local.parallel.degrees.Degrees`.
        backend: "own" or "yunchang", what carries attention over the cards.
        weights: arguments of :meth:`load`; None loads nothing yet.
    """

    def __init__(
        self,
        place: Any,
        *,
        cfg: int = 1,
        ulysses: int = 1,
        ring: int = 1,
        backend: str = "own",
        weights: dict[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(place.device)
        self.degrees = Degrees(cfg=cfg, ulysses=ulysses, ring=ring)
        self.groups = Groups(self.degrees)
        self._backend = backend
        self._model: Any = None
        self._views: list[Any] = []
        self._guidance = 1.0
        self._seconds = 0.0
        self._loads = 0
        self._told: dict[str, float] = {}
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
    ) -> dict[str, float]:
        """Read the weights; what they take on this card, and how long it took.

        Args:
            path: as for :func:`wan_local.weights.load_transformer`.
            dtype: of the weights, "float32", "bfloat16" or "float16"; packed ones are calculated with in it.
            attention: kernel, see :func:`wan_local.attention.choose`.
            fsdp: deal the weights out over all cards.
            loras: ``path`` and ``strength`` each.
            unpack, float8_matmul: of packed weights, see :func:`wan_local.weights.load_transformer`.

        Raises:
            InputError: heads that the split does not divide, LoRAs together with fsdp.
            WeightsError: as for :func:`wan_local.weights.load_transformer`.
        """
        from .. import lora
        from ..quantised import parameter_shapes
        from ..weights import load_transformer
        from .fsdp import load_sharded

        began, attend = time.perf_counter(), choose_attention(attention)
        if fsdp:
            if loras:
                raise InputError("LoRAs can't be put on weights that fsdp deals out; merge them, or run without fsdp")
            model, told = load_sharded(path, DTYPES[dtype], self.device, attend)
        else:
            packed = {"unpack": unpack, "float8_matmul": float8_matmul}
            model = load_transformer(path, DTYPES[dtype], self.device, attend=attend, **packed)
            shapes = parameter_shapes(model)
            uses = [
                lora.Use(lora=lora.read(one["path"], shapes), strength=float(one["strength"])) for one in loras or ()
            ]
            lora.apply(model, uses)
            size = sum(value.nbytes for value in model.parameters())
            told = {"bytes": size, "full": size, "seconds": time.perf_counter() - began}
        check(self.degrees, model.config.num_heads, self.degrees.cards)
        if self.degrees.shards > 1:
            model.sequence = self._sequence()
        self._model, self._loads, self._told = model, self._loads + 1, told
        return told

    def begin(self, sides: list[dict[str, Any]], guidance: float) -> None:
        """Remember everything that stays the same over a run.

        Args:
            sides: fields of :class:`wan_local.sampling.Side` each: under the prompt, then under the negative prompt
                unless guidance is 1.
            guidance: guidance scale.
        """
        sides = sides[:1] if guidance == 1 else sides
        if self.degrees.cfg == 2 and len(sides) == 2:
            sides = [sides[self.groups.cfg.index]]
        self._views = [prompted_velocity(self._model, self._here(side)) for side in sides]
        self._guidance = guidance

    @torch.no_grad()
    def velocity(self, latents: Tensor, timestep: float) -> Tensor | None:
        """The guided velocity of latents ``[B, C, T, h, w]``, float32 on the CPU; None on every rank but the first."""
        if not self._views:
            raise InputError("a run has to begin before a step")
        began = time.perf_counter()
        latents = latents.to(self.device)
        found = [view(latents, timestep) for view in self._views]
        if self.degrees.cfg == 2 and self._guidance != 1:
            found = self.groups.cfg.gather(found[0])
        result = found[0] if len(found) == 1 else combine(found[0], found[1], self._guidance)
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        told = result.float().cpu() if first else None
        self._seconds += time.perf_counter() - began
        return told

    def statistics(self) -> dict[str, float]:
        """Since the start: bytes sent, seconds in exchanges, seconds in steps, how often weights were read, what they
        take here and in all, and how long reading took."""
        traffic = self.groups.traffic
        told = {"sent": traffic.sent, "exchanging": traffic.seconds, "steps": self._seconds, "loads": self._loads}
        return told | {f"weights {key}": value for key, value in self._told.items()}

    def _here(self, side: dict[str, Any]) -> Side:
        moved: dict[str, Any] = {name: None if value is None else value.to(self.device) for name, value in side.items()}
        return Side(**moved)

    def _sequence(self) -> Any:
        if self._backend == "yunchang":
            from .yunchang_backend import SharedByYunchang

            return SharedByYunchang(self.groups)
        return Shared(self.groups)
