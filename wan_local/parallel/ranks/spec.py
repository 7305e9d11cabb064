"""What a group of ranks is: how many, where, and the object each of them serves."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from .limits import Limits

LAUNCHERS = ("local", "ray")
BACKENDS = ("auto", "gloo", "nccl")
PLACEMENTS = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
RAY_AUTH = ("", "disabled", "token")


@dataclass(frozen=True, kw_only=True, slots=True)
class RaySettings:
    """Only for ``launcher="ray"``.

    Attributes:
        address: ``host:port`` of the head node, ``"auto"`` for the cluster this machine belongs to, empty to start Ray
            on this machine for this group alone.
        auth: empty leaves Ray's own setting (``RAY_AUTH_MODE``, tokens by default since 2.60); or ``"disabled"``,
            ``"token"``.
        placement: how ranks are spread over machines; ``"PACK"`` fills one machine before the next.
        cpus: of each rank, for Ray's accounts.
        gpus: of each rank; None means 1 on CUDA and 0 on the CPU. 0.5 puts two ranks on one card.
        object_store: bytes of shared memory, where we start Ray ourselves.
    """

    address: str = ""
    auth: str = ""
    placement: str = "PACK"
    cpus: float = 1.0
    gpus: float | None = None
    object_store: int = 512 << 20

    def __post_init__(self) -> None:
        if self.auth not in RAY_AUTH:
            raise InputError(f"ray auth={self.auth!r}; use one of {', '.join(map(repr, RAY_AUTH))}")
        if self.placement not in PLACEMENTS:
            raise InputError(f"ray placement={self.placement!r}; use one of {', '.join(PLACEMENTS)}")
        host, colon, port = self.address.rpartition(":")
        if self.address not in ("", "auto") and not (colon and host and port.isdigit() and "/" not in host):
            raise InputError(f"ray address {self.address!r}; use host:port of the head node, such as 10.0.0.1:6379")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSpec:
    """One group of ranks.

    Attributes:
        target: ``"module:Class"``; ``".parallel.x:Class"`` is a module of this library. Each rank builds
            ``Class(place, **kwargs)`` (:class:`wan_local.parallel.ranks.rank.Place`) and serves its public methods.
        devices: one for each rank: ``("cuda:0", "cuda:1")``, ``("cpu", "cpu")``. Under Ray a rank sees only its own
            card, so every rank of ``("cuda", "cuda")`` uses the one Ray gives it.
        kwargs: for the class: what :func:`wan_local.parallel.ranks.messages.encode` can send.
        launcher: ``"local"``, processes on this machine, or ``"ray"``.
        backend: of torch.distributed. ``"auto"`` takes nccl where every rank has a card of its own, else gloo.
        threads: CPU threads of a rank; None leaves torch's default.
        paths: folders to add to the end of a rank's path, for targets outside the library.

    Raises:
        InputError: an impossible setting, with the possible ones.
    """

    target: str
    devices: tuple[str, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    launcher: str = "local"
    backend: str = "auto"
    threads: int | None = None
    paths: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    ray: RaySettings = field(default_factory=RaySettings)

    def __post_init__(self) -> None:
        module, colon, name = self.target.partition(":")
        if not (colon and module and name.isidentifier()):
            raise InputError(f"target {self.target!r}; use module:Class")
        if self.launcher not in LAUNCHERS:
            raise InputError(f"launcher={self.launcher!r}; use one of {', '.join(LAUNCHERS)}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend={self.backend!r}; use one of {', '.join(BACKENDS)}")
        if not self.devices:
            raise InputError("no device for any rank; name at least one, such as cuda:0")
        for device in self.devices:
            kind, _, index = device.partition(":")
            if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
                raise InputError(f"device {device!r} of a rank; use cpu or cuda:0, cuda:1, ...")
        self._check_backend()

    def _check_backend(self) -> None:
        if self.backend != "nccl":
            return
        if platform.system() == "Windows":
            raise InputError("backend=nccl does not exist on Windows; use gloo")
        if any(not device.startswith("cuda") for device in self.devices):
            raise InputError(
                f"backend=nccl with devices {', '.join(self.devices)}; nccl needs a CUDA card for each rank"
            )
        if self.shares_a_card:
            raise InputError(f"backend=nccl with devices {', '.join(self.devices)}; two ranks on a card need gloo")

    @property
    def world(self) -> int:
        """Number of ranks."""
        return len(self.devices)

    @property
    def shares_a_card(self) -> bool:
        """Whether two ranks use one card, which nccl refuses."""
        if self.launcher == "ray":
            return self.gpus_each < 1
        return len({_full(device) for device in self.devices}) < self.world

    @property
    def gpus_each(self) -> float:
        """Cards of one rank in Ray's accounts."""
        if self.ray.gpus is not None:
            return self.ray.gpus
        return 1.0 if self.devices[0].startswith("cuda") else 0.0

    @property
    def chosen_backend(self) -> str:
        """``"nccl"`` or ``"gloo"``."""
        if self.backend != "auto":
            return self.backend
        every = all(device.startswith("cuda") for device in self.devices)
        return "nccl" if every and not self.shares_a_card and platform.system() != "Windows" else "gloo"


def _full(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def cuda_devices(count: int) -> tuple[str, ...]:
    """The first ``count`` cards of this machine.

    Raises:
        InputError: fewer than one, or more than there are.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"gpus={count!r}; use a whole number from 1 up")
    devices = tuple(f"cuda:{index}" for index in range(count))
    check_devices(devices)
    return devices


def check_devices(devices: tuple[str, ...]) -> None:
    """Raise :class:`InputError` if a card of this machine is named that is not there."""
    import torch

    wanted = [int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")]
    there = torch.cuda.device_count() if wanted else 0
    if wanted and max(wanted) >= there:
        names = f"torch sees {there} CUDA card{'' if there == 1 else 's'} on this machine"
        raise InputError(f"{len(wanted)} ranks want cards up to cuda:{max(wanted)}, but {names}; ask for fewer GPUs")
