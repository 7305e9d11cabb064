"""A model on several cards, as a value on a wire: what ``sockets.WanModel`` is for one card."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import torch

from ..wan_local.lora import Lora
from ..wan_local.model import WanTransformer
from ..wan_local.parallel.group_model import GroupTransformer, Setup
from ..wan_local.parallel.ranks import Pool
from ..wan_local.quantised import parameter_shapes
from ..wan_local.shapes import Grid
from . import host

IDLE_SECONDS = 900.0  # after which cards that nobody uses are given back


class Ranks:
    """The one group of ranks of this ComfyUI, and the clock that ends it when nobody uses it."""

    def __init__(self) -> None:
        self.pool = Pool()
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def used(self) -> None:
        """Start the clock anew."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(IDLE_SECONDS, self.pool.close)
            self._timer.daemon = True
            self._timer.start()


RANKS = Ranks()


class MultiModel:
    """The value on a ``WAN_FLF2V_MODEL`` wire behind the node for several cards. Nothing runs before it is sampled."""

    def __init__(self, setup: Setup) -> None:
        self.transformer = GroupTransformer(setup, RANKS.pool, stop=_stop_and_stay, before_start=host.free_everything)

    @property
    def device(self) -> torch.device:
        return host.compute_device()

    def get_models(self) -> list[Any]:
        """Nothing the host could evict: the weights are in other processes."""
        return []

    def load(self, grid: Grid, batch: int = 1) -> GroupTransformer:
        return self.transformer

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Official parameter name to shape."""
        with torch.device("meta"):
            return parameter_shapes(WanTransformer(self.transformer.config))

    def with_lora(self, lora: Lora, strength: float) -> MultiModel:
        """The same with a LoRA, which every rank reads and puts on when it starts."""
        setup = self.transformer.setup
        return MultiModel(replace(setup, loras=(*setup.loras, (lora.path, strength))))

    def __repr__(self) -> str:
        return f"<Wan transformer on {self.transformer.setup.gpus} cards, {self.transformer.degrees}>"


def _stop_and_stay() -> None:
    RANKS.used()
    host.stop_if_asked()
