"""What runs where: everything a person chooses about several GPUs, and whether it can be, before anything starts."""

from __future__ import annotations

import os
import platform
from collections.abc import Hashable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch

from .. import lora
from ..attention import BACKENDS
from ..attention import choose as choose_attention
from ..config import TransformerConfig
from ..errors import InputError
from ..model import WanTransformer
from ..quantised import parameter_shapes
from ..ranks import RaySettings, check_ray, cuda_devices
from ..settings import BOUNDARY
from ..weights import sizes
from ..weights.experts import check_pair
from ..weights.fit import fitted
from ..weights.load import transformer_source
from ..weights.source import TensorSource
from . import fsdp
from .degrees import AUTO, Degrees, choose
from .rank_model import DTYPES
from .ring import check_attention
from .yunchang_backend import instead_of_xfuser, why_not

FEW = 8  # ranks that any machine may try out on its CPU
STAMPED = ("*.safetensors", "*.json", "*.pth", "*.gguf")


class TooFewGPUs(InputError):
    """More GPUs asked for than torch sees on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What runs where. Two equal setups can share one group of ranks; so can two that differ in the split only.

    Attributes:
        path: of the transformer's weights, readable by every rank; made absolute, since ranks have a folder of their
            own.
        gpus: number of GPUs.
        ulysses, ring, cfg: the split; 0 chooses, see :func:`wan_local.parallel.degrees.choose`.
        fsdp: shard the weights over the GPUs.
        dtype, attention, unpack, float8_matmul, compiled: see :meth:`wan_local.parallel.rank_model.Rank.load`.
        loras: path and strength each, merged or put beside in every rank; paths are made absolute.
        low, low_loras: the same of Wan2.2's low-noise expert, where ``path`` is the high-noise one; empty for a model
            that does every step.
        boundary, low_guidance: when ``low`` works, and under which guidance scale: see
            :class:`wan_local.denoiser.Denoiser`.
        turns: whether the two experts take turns on each GPU; None where they don't fit together.
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
    compiled: bool = False
    low: str = ""
    low_loras: tuple[tuple[str, float], ...] = ()
    boundary: float = BOUNDARY
    low_guidance: float | None = None
    turns: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.path.abspath(self.path))
        object.__setattr__(self, "low", os.path.abspath(self.low) if self.low else "")
        for name in ("loras", "low_loras"):
            loras = tuple((os.path.abspath(path), strength) for path, strength in getattr(self, name))
            object.__setattr__(self, name, loras)

    @property
    def models(self) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
        """File and LoRAs of each transformer."""
        first = self.path, self.loras
        return (first, (self.low, self.low_loras)) if self.low else (first,)

    def split(self, config: TransformerConfig, guided: bool = True) -> tuple[Degrees, str]:
        """The degrees of a run with or without guidance, and why they were taken.

        Raises:
            InputError: nothing fits, or attention can't be carried over the GPUs that way.
        """
        wishes = {"cfg": self.cfg, "ulysses": self.ulysses, "ring": self.ring}
        degrees, why = choose(self.gpus, config.num_heads, guided=guided, **wishes)
        check_attention(self.attention, degrees)
        return degrees, why

    def with_lora(self, path: str, strength: float) -> Setup:
        """The same with one more LoRA, on both of two experts."""
        more = ((path, strength),)
        return replace(self, loras=self.loras + more, low_loras=self.low_loras + more if self.low else ())

    def on_one_gpu(self) -> Setup:
        """The same without what only says where it runs."""
        one: Setup = replace(
            self, gpus=1, ulysses=AUTO, ring=AUTO, cfg=AUTO, fsdp=False, ray_address="", backend="own", turns=None
        )
        return one

    def key(self) -> Hashable:
        """Everything the state of the ranks depends on, the files' own changes among it. The split is none of it."""
        files = [file for path, loras in self.models for file in (path, *(lora for lora, _ in loras))]
        same = replace(self, cfg=AUTO, ulysses=AUTO, ring=AUTO, boundary=BOUNDARY, low_guidance=None)
        return same, tuple(_stamp(Path(file)) for file in files)

    @property
    def ray(self) -> RaySettings:
        """The cluster; :class:`InputError` for an address that is none."""
        return RaySettings(address="" if self.ray_address == "local" else self.ray_address, placement="PACK")


def check(setup: Setup) -> TransformerConfig:
    """Everything that would only fail once models are unloaded and processes started; the sizes of the model.

    Raises:
        InputError: a combination that can't be, or that can't be here.
        WeightsError: weights or LoRAs that are not there, or of another model.
    """
    if not torch.distributed.is_available():
        raise InputError(
            f"several GPUs can't be used by this torch {torch.__version__}: it was built without torch.distributed, as "
            "some for Windows are; use one GPU, or a torch that has it"
        )
    check_backend(setup.backend)
    if setup.dtype not in DTYPES:
        raise InputError(f"dtype={setup.dtype!r} can't be used on several GPUs; use {', '.join(DTYPES)}")
    _check_kernel(setup)
    _check_ray(setup)
    sources = [transformer_source(path) for path, _ in setup.models]
    if setup.low:
        check_pair(*sources)
    config = sizes.transformer_config(sources[0])
    with torch.device("meta"):
        shapes = parameter_shapes(WanTransformer(config))
    for source, (_, loras) in zip(sources, setup.models, strict=True):
        if setup.fsdp:
            _check_fsdp(setup, source)
        fitted(source, shapes)
        for path, _ in loras:
            lora.read(path, shapes)
    return config


def check_backend(name: str) -> None:
    """Raise :class:`InputError` unless attention can be carried over the GPUs by that."""
    if name == "own":
        return
    reason = why_not() if name == "yunchang" else instead_of_xfuser() if name == "xfuser" else "it is not known"
    if reason is not None:
        raise InputError(f"backend={name!r} can't be used here: {reason}")


def _check_kernel(setup: Setup) -> None:
    """A kernel that is not known, or not here; what other machines have, only their ranks can say."""
    if not setup.ray_address or setup.attention not in (*BACKENDS, "auto"):
        choose_attention(setup.attention)


def _check_ray(setup: Setup) -> None:
    if not setup.ray_address:
        return
    _ = setup.ray
    check_ray()


def _check_fsdp(setup: Setup, source: TensorSource) -> None:
    if setup.compiled:
        raise InputError("weights that fsdp shards can't be used by compiled blocks; run without fsdp or compile")
    if setup.loras or setup.low_loras:
        raise InputError("LoRAs can't be put on weights that fsdp shards; run without fsdp or without them")
    if source.packed:
        raise InputError(
            f"{source.path} holds packed weights (fp8, int8, fp4 or GGUF), which fsdp can't shard; run it without fsdp"
        )
    if setup.device == "cuda" and platform.system() == "Windows":
        raise InputError("fsdp needs NCCL, which Windows does not have; run without fsdp, or on Linux")
    if setup.device == "cpu" and not fsdp.works_on_cpu():
        raise InputError(f"fsdp on the CPU needs torch 2.6, and this is {torch.__version__}; run without fsdp")


def devices(setup: Setup) -> tuple[str, ...]:
    """A device for every rank; on this machine they are looked for, in a cluster Ray does that.

    Raises:
        TooFewGPUs: more than torch sees here.
        InputError: another kind of device, or more ranks than a CPU can have any use for.
    """
    if setup.device == "cpu":
        most = max(FEW, os.cpu_count() or 1)
        if not setup.ray_address and setup.gpus > most:
            raise InputError(
                f"gpus={setup.gpus} can't be used: this runs on the CPU, since torch sees no CUDA GPU; use {most} or "
                "less to try it out"
            )
        return ("cpu",) * setup.gpus
    if setup.device != "cuda":
        raise InputError(
            f"device={setup.device!r} can't be used for several GPUs, only CUDA; take the model without them"
        )
    if setup.ray_address:
        return ("cuda",) * setup.gpus
    try:
        return cuda_devices(setup.gpus)
    except InputError as error:
        raise TooFewGPUs(str(error)) from error


def _stamp(path: str | PathLike[str]) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of a file, or of everything in a folder that weights are read with."""
    path = Path(path)
    files = sorted({file for kind in STAMPED for file in path.rglob(kind)}) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
