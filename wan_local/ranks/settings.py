"""What a group of ranks is: how many, where, the object each of them serves, and how long anything may take."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError

LAUNCHERS = ("local", "ray")
BACKENDS = ("auto", "gloo", "nccl")
PLACEMENTS = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
RAY_AUTH = ("", "disabled", "token")
STEP_VARIABLE = "WAN_FLF2V_STEP_LIMIT"  # read by whoever drives the ranks; this library reads no environment
SLOW = f"; if that is too short here, set {STEP_VARIABLE} (--step-limit on the command line) to more seconds"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long anything may take; no wait is without an end. All in seconds, but ``slack``.

    A dead or frozen rank is found long before: limits of calls are for ranks that are there and never come to an end.

    Attributes:
        start: until every rank has answered for the first time (Python and torch imported; Ray joined and placed).
        join: until the ranks have found each other.
        load: until every rank has built its object; 30 GB from a slow disk take their time.
        call: one call, unless the call names another limit.
        first: the first call of a method: kernels are compiled, weights come from the disk.
        slack: later calls of a method may also take so many times its longest one until then; 1 stretches nothing.
        silence: a rank that gives no sign of life for so long is frozen, whatever the call's limit is.
        stop: after the user's stop, how long to wait for the call under way to end by itself.
        abandon: after that the group is left to finish the stopped call in the background; ended if it takes longer.
        close: until the processes are gone.
    """

    start: float = 120.0
    join: float = 120.0
    load: float = 1800.0
    call: float = 600.0
    first: float = 3600.0
    slack: float = 5.0
    silence: float = 60.0
    stop: float = 1.0
    abandon: float = 120.0
    close: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"limit {name}={value!r}; use a number of seconds above 0")

    def for_call(self, longest: float | None) -> float:
        """Of a call whose caller names none; ``longest``: that a call of this method has taken, None at the first."""
        return max(self.first, self.call) if longest is None else max(self.call, self.slack * longest)

    @property
    def collective(self) -> float:
        """Of one collective: a rank may wait for another one as long as anything may take."""
        return max(self.call, self.first, self.load)


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
        gpus: of each rank; None means 1 on CUDA and 0 on the CPU. 0.5 puts two ranks on one GPU.
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
            ``Class(info, **kwargs)`` (:class:`wan_local.ranks.RankInfo`) and serves its public methods.
        devices: one for each rank: ``("cuda:0", "cuda:1")``, ``("cpu", "cpu")``. Under Ray a rank sees only its own
            GPU, so every rank of ``("cuda", "cuda")`` uses the one Ray gives it.
        kwargs: for the class: what :func:`wan_local.ranks.messages.encode` can send.
        launcher: ``"local"``, processes on this machine, or ``"ray"``.
        backend: of torch.distributed. ``"auto"`` takes nccl where every rank has a GPU of its own, else gloo.
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
                f"backend=nccl with devices {', '.join(self.devices)}; nccl needs a CUDA GPU for each rank"
            )
        if self.shares_a_gpu:
            raise InputError(f"backend=nccl with devices {', '.join(self.devices)}; two ranks on a GPU need gloo")

    @property
    def world(self) -> int:
        """Number of ranks."""
        return len(self.devices)

    @property
    def shares_a_gpu(self) -> bool:
        """Whether two ranks use one GPU, which nccl refuses."""
        if self.launcher == "ray":
            return self.gpus_each < 1
        return len({_full(device) for device in self.devices}) < self.world

    @property
    def gpus_each(self) -> float:
        """GPUs of one rank in Ray's accounts."""
        if self.ray.gpus is not None:
            return self.ray.gpus
        return 1.0 if self.devices[0].startswith("cuda") else 0.0

    @property
    def chosen_backend(self) -> str:
        """``"nccl"`` or ``"gloo"``."""
        if self.backend != "auto":
            return self.backend
        every = all(device.startswith("cuda") for device in self.devices)
        return "nccl" if every and not self.shares_a_gpu and platform.system() != "Windows" else "gloo"


def _full(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def cuda_devices(count: int) -> tuple[str, ...]:
    """The first ``count`` GPUs of this machine.

    Raises:
        InputError: fewer than one, or more than there are.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"gpus={count!r}; use a whole number from 1 up")
    devices = tuple(f"cuda:{index}" for index in range(count))
    check_devices(devices)
    return devices


def check_devices(devices: tuple[str, ...]) -> None:
    """Raise :class:`InputError` if a GPU of this machine is named that is not there."""
    import torch

    wanted = [int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")]
    there = torch.cuda.device_count() if wanted else 0
    if wanted and max(wanted) >= there:
        names = f"torch sees {there} CUDA GPU{'' if there == 1 else 's'} on this machine"
        raise InputError(f"cuda:{max(wanted)} is asked for (ranks: {len(wanted)}), but {names}; ask for fewer GPUs")


def step_limit(given: str | float | None = None) -> Limits:
    """The limits with what a person says about a step: seconds that the first and every other one may take. Starting,
    meeting and loading may take as long where that is more than they have.

    Args:
        given: the value of ``WAN_FLF2V_STEP_LIMIT``; empty or None leaves the defaults, which follow what steps take.

    Raises:
        InputError: not a number of seconds above 0.
    """
    if given is None or given == "":
        return Limits()
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{STEP_VARIABLE}={str(given)!r} can't be used; give seconds above 0, such as 3600")
    usual = Limits()
    longer = {name: max(seconds, getattr(usual, name)) for name in ("start", "join", "load")}
    return Limits(call=seconds, first=seconds, slack=1.0, **longer)
