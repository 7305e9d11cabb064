"""A model on several GPUs on the same socket, and when their processes end: beside ``model.py``, for one GPU."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import torch

from ...wan_local.denoiser import Denoiser
from ...wan_local.lora import Lora
from ...wan_local.model import WanTransformer
from ...wan_local.parallel.group_model import GroupTransformer, Setup, denoisers_of
from ...wan_local.quantised import parameter_shapes
from ...wan_local.ranks import STEP_VARIABLE, Pool, RankError, step_limit
from ...wan_local.shapes import Grid
from ...wan_local.weights import experts
from .. import host
from .model import name_of
from .model_speed import Approximated

IDLE_SECONDS = 900.0  # after which GPUs that nobody uses are given back
ON_DETACH = "on_detach_after"  # the host's name for what it calls when it has unloaded a model


class Ranks:
    """The one group of ranks of this ComfyUI. It ends when nobody uses it for a while, and when the host wants its
    GPUs back: "Unload models", or a model of its own that needs the room."""

    def __init__(self) -> None:
        self.pool = Pool()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._last = 0.0
        self._marker: Any = None
        self._marked = False

    def used(self) -> None:
        """Start the clock anew. Asked many times a second, so it only notes the time; one timer looks at it."""
        with self._lock:
            self._last = time.monotonic()
            if self._timer is None:
                self._watch(IDLE_SECONDS)

    def make_room(self) -> None:
        """Take the host's own models off the GPUs; the ranks stay."""
        self.used()
        self._marked = False
        host.free_everything()

    def show_to_host(self) -> None:
        """Put a model among the host's loaded ones that stands for the ranks, so that unloading it ends them."""
        if self._marker is None:
            self._marker = host.hold(Marker(), host.compute_device(), host.offload_device())
            self._marker.add_callback(ON_DETACH, self._unloaded)
        host.load(self._marker)
        self._marked = True

    def _unloaded(self, *_: Any) -> None:
        if self._marked:
            self._marked = False
            self._close("ComfyUI has taken its GPUs back")

    def _watch(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            left = self._last + IDLE_SECONDS - time.monotonic()
            self._timer = None
            if left <= 0 and not self._closed():
                left = IDLE_SECONDS  # a step takes that long
            if left > 0:
                self._watch(left)

    def _closed(self) -> bool:
        try:
            return self.pool.close_if_idle()
        except RankError as error:
            host.log.warning("%s", error)
            return True

    def _close(self, why: str) -> None:
        try:
            self.pool.close(why)
        except RankError as error:  # raised into the host's own work, it would end more than the ranks
            host.log.warning("%s", error)


class Marker(torch.nn.Module):
    """Stands for the ranks among the host's models; it has a number to load, so that the host takes it for one."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1), requires_grad=False)


RANKS = Ranks()


class MultiModel(Approximated):
    """The value on a ``WAN_FLF2V_MODEL`` wire behind Wan FLF2V Multi GPU. Nothing runs before it is sampled."""

    def __init__(self, setup: Setup) -> None:
        limits = step_limit(os.environ.get(STEP_VARIABLE))
        hooks = (_stop_and_stay, RANKS.make_room, RANKS.show_to_host)
        self.transformer = GroupTransformer(setup, RANKS.pool, *hooks, limits=limits)

    @property
    def device(self) -> torch.device:
        return host.compute_device()

    def get_models(self) -> list[Any]:
        """Nothing the host could evict: the weights are in other processes."""
        return []

    def denoisers(self, grid: Grid, batch: int = 1) -> list[Denoiser]:
        """What samples clips of any size."""
        return denoisers_of(self.transformer)

    @property
    def setup(self) -> Setup:
        """What it is made from, with the split."""
        return self.transformer.setup

    @property
    def named(self) -> str:
        """As of a model on one GPU."""
        return name_of(self.setup)

    @property
    def level(self) -> str | None:
        """As of the model that was given; two experts are both on every GPU."""
        return "both experts" if self.setup.low else experts.level_of(self.setup.path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Official parameter name to shape."""
        with torch.device("meta"):
            return parameter_shapes(WanTransformer(self.transformer.config))

    def with_lora(self, lora: Lora, strength: float) -> MultiModel:
        """The same with a LoRA, on both of two experts, which every rank reads and puts on when it starts."""
        return MultiModel(self.setup.with_lora(lora.path, strength)).with_approximations(self.approximations)

    def __repr__(self) -> str:
        return f"<Wan transformer on {self.setup.gpus} GPUs, {self.transformer.degrees}>"


def _stop_and_stay() -> None:
    RANKS.used()
    host.stop_if_asked()
