"""What the caller holds instead of a transformer: a group of cards that is asked once a step.

The caller keeps sampler, preview and stop, and no rank. Everything that stays the same over a run is sent once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import TransformerConfig
from ..errors import InputError
from ..sampling import Side, Velocity
from ..weights import detect, sizes
from ..weights.load import needed, open_source
from .degrees import AUTO, Degrees, choose
from .ranks import GroupSpec, Limits, Pool, RankGroup, RaySettings, cuda_devices
from .yunchang_backend import instead_of_xfuser, why_not

TARGET = ".parallel.rank_model:Rank"
FIRST_STEP = 1800.0  # seconds; kernels are compiled and weights come from the disk


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What runs where. Two equal setups can share one group of ranks.

    Attributes:
        path: of the transformer's weights, readable by every rank.
        gpus: number of cards.
        ulysses, ring, cfg: the split; 0 chooses, see :func:`wan_local.parallel.degrees.choose`.
        fsdp: deal the weights out over the cards.
        dtype, attention, unpack, float8_matmul: see :meth:`wan_local.parallel.rank_model.Rank.load`.
        loras: path and strength each, merged or put beside in every rank.
        device: "cuda", or "cpu" to try things out.
        ray_address: head node of a Ray cluster, "auto" or "local" (Ray on this machine); empty for processes of this
            machine without Ray.
        backend: "own" or "yunchang".
    """

    path: str
    gpus: int
    ulysses: int = AUTO
    ring: int = AUTO
    cfg: int = AUTO
    fsdp: bool = False
    dtype: str = "bfloat16"
    attention: str = "auto"
    unpack: bool = False
    float8_matmul: bool = False
    loras: tuple[tuple[str, float], ...] = ()
    device: str = "cuda"
    ray_address: str = ""
    backend: str = "own"

    def split(self, config: TransformerConfig) -> tuple[Degrees, str]:
        """The degrees, and why they were taken; :class:`InputError` if nothing fits."""
        return choose(self.gpus, config.num_heads, cfg=self.cfg, ulysses=self.ulysses, ring=self.ring)

    def key(self) -> Hashable:
        """Everything the state of the ranks depends on, the files' own changes among it."""
        files = [self.path, *(path for path, _ in self.loras)]
        return self, tuple(_stamp(Path(path)) for path in files)


class GroupTransformer:
    """Stands in a pipeline where a transformer would; see :func:`wan_local.sampling.model_velocity`.

    Args:
        setup: what runs where.
        pool: keeps the ranks between runs.
        stop: asked several times a second while a step runs; to stop it returns True, or raises.
        before_start: called before ranks are started, to make room on the cards.

    Raises:
        InputError: a split or a number of cards that can't be.
        WeightsError: weights that are none of this model's.
    """

    def __init__(
        self,
        setup: Setup,
        pool: Pool,
        stop: Callable[[], object] | None = None,
        before_start: Callable[[], None] | None = None,
    ) -> None:
        check_backend(setup.backend)
        self.config = read_config(setup.path)
        self.degrees, self.why = setup.split(self.config)
        self.setup, self._pool, self._stop, self._before_start = setup, pool, stop, before_start
        self.devices = devices(setup)

    def start(self) -> RankGroup:
        """The ranks, with the weights loaded: those of the run before where nothing changed."""
        return self._pool.lease(self.setup.key(), self._make, self._stop)

    def guided_velocity(self, sides: Sequence[Side], guidance: float) -> Velocity:
        """As :func:`wan_local.sampling.model_velocity`; starts the ranks and sends them the sides.

        Raises:
            InputError: guidance that is not a finite number.
            RankError: a rank failed; the next run starts fresh ones.
        """
        if not math.isfinite(guidance):
            raise InputError(f"guidance={guidance!r} can't be used; give a number such as 5.5, or 1 for none")
        group = self.start()
        sent = [{name: _host(value) for name, value in _fields(side).items()} for side in sides]
        group.call("begin", sent, float(guidance), stage="begin", stop=self._stop)
        step = 0

        def velocity(latents: Tensor, timestep: float) -> Tensor:
            nonlocal step
            step += 1
            found: Tensor = group.call_first(
                "velocity", _host(latents), float(timestep), stage=f"step {step}", stop=self._stop,
                timeout=FIRST_STEP if step == 1 else None,
            )  # fmt: skip
            return found.to(latents.device)

        return velocity

    def statistics(self) -> list[dict[str, float]]:
        """What every rank counted since its start, see :meth:`wan_local.parallel.rank_model.Rank.statistics`."""
        return self.start().call("statistics")

    def with_lora(self, path: str, strength: float) -> GroupTransformer:
        """The same with one more LoRA; other ranks, since it is merged there."""
        setup = replace(self.setup, loras=(*self.setup.loras, (path, strength)))
        return GroupTransformer(setup, self._pool, self._stop, self._before_start)

    def _make(self) -> RankGroup:
        if self._before_start is not None:
            self._before_start()
        setup = self.setup
        weights = {
            "path": setup.path, "dtype": setup.dtype, "attention": setup.attention, "fsdp": setup.fsdp,
            "unpack": setup.unpack, "float8_matmul": setup.float8_matmul,
            "loras": [{"path": path, "strength": strength} for path, strength in setup.loras],
        }  # fmt: skip
        ray = {"local": "", "": ""}.get(setup.ray_address, setup.ray_address)
        return RankGroup(
            GroupSpec(
                target=TARGET,
                devices=self.devices,
                kwargs={**asdict(self.degrees), "backend": setup.backend, "weights": weights},
                launcher="ray" if setup.ray_address else "local",
                threads=1 if setup.device == "cpu" else None,
                limits=Limits(),
                ray=RaySettings(address=ray, placement="PACK"),
            )
        )


def check_backend(name: str) -> None:
    """Raise :class:`InputError` unless attention can be carried over the cards by that."""
    if name == "own":
        return
    reason = why_not() if name == "yunchang" else instead_of_xfuser() if name == "xfuser" else "it is not known"
    if reason is not None:
        raise InputError(f"backend={name!r} can't be used here: {reason}")


def read_config(path: str | PathLike[str]) -> TransformerConfig:
    """Sizes of a transformer from its headers.

    Raises:
        WeightsError: nothing readable there, or another model.
    """
    source = detect.canonical(open_source(path, "transformer"))
    found = detect.kind(source)
    if found not in detect.LOADABLE:
        raise detect.wrong(source, found, needed("transformer", found))
    return sizes.transformer_config(source)


def devices(setup: Setup) -> tuple[str, ...]:
    """A device for every rank; on this machine they are looked for, in a cluster Ray does that."""
    if setup.device == "cpu":
        return ("cpu",) * setup.gpus
    return ("cuda",) * setup.gpus if setup.ray_address else cuda_devices(setup.gpus)


def _fields(side: Side) -> dict[str, Tensor | None]:
    return {"condition": side.condition, "text": side.text, "image": side.image}


def _host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of a file, or of every weight file of a folder."""
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
