"""What one rank does, the same object in a process of ours and in a Ray worker: answers one message at a time."""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import identity, interface
from .errors import one_line
from .meeting import Meeting
from .messages import Buffer, Header, decode, encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a rank stands; the first argument of the class it builds. torch.distributed is up by then.

    Attributes:
        rank: ``0..world - 1``.
        world: number of ranks.
        device: ``"cpu"`` or ``"cuda:N"`` as this process counts; it is the current device.
        backend: ``"gloo"`` or ``"nccl"``.
    """

    rank: int
    world: int
    device: str
    backend: str


class Rank:
    """Serves the driver's messages; never raises, a failure is an answer."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._meeting = Meeting()
        self._served: Any = None

    def leave(self) -> None:
        """What remains to be done when the process ends, however that comes about. From any thread, and quick."""
        self._meeting.leave()

    def handle(self, header: Header, buffers: Sequence[Buffer]) -> tuple[Header, list[Buffer]]:
        """The answer to one message: ``{"id", "value"}`` or ``{"id", "error"}``."""
        number = -1
        try:
            message = decode(header, buffers)
            number = message.pop("id")
            operation = getattr(self, f"_on_{message.pop('op')}")
            return encode({"id": number, "value": operation(**message)})
        except BaseException as error:  # also SystemExit: a rank that dies quietly is the worst kind of failure
            return encode({"id": number, "error": describe(error)})

    def _on_hello(self, threads: int | None, paths: Sequence[str]) -> dict[str, str]:
        """Import torch and say what runs here."""
        sys.path.extend(path for path in paths if path not in sys.path)
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        return identity.versions()

    def _on_store(self, host: str, world: int, limit: float) -> dict[str, Any]:
        """Rank 0 opens the meeting place of the ranks; where it is."""
        return self._meeting.open(host, world, limit)

    def _on_join(self, place: dict[str, Any], host: str, where: dict[str, Any], limit: float, patience: float) -> None:
        """Meet the other ranks.

        Args:
            host: this rank's own address.
            where: the meeting place, as ``_on_store`` told it.
            patience: seconds a collective may take before it fails by itself.
        """
        import torch
        import torch.distributed as dist

        self._place = Place(**place)
        store = self._meeting.join(where, self._place.world, limit)
        interface.bind_gloo(host)
        bound: dict[str, Any] = {}
        if self._place.device.startswith("cuda"):
            torch.cuda.set_device(torch.device(self._place.device))
            if self._place.backend == "nccl":  # the communicator is made now, not inside the first step
                bound["device_id"] = torch.device("cuda", torch.cuda.current_device())
        dist.init_process_group(
            self._place.backend,
            store=store,
            rank=self._place.rank,
            world_size=self._place.world,
            timeout=timedelta(seconds=patience),
            **bound,
        )
        mine = torch.tensor([self._place.rank], device=bound.get("device_id", "cpu"))
        every = [torch.empty_like(mine) for _ in range(self._place.world)]
        dist.all_gather(every, mine)  # every pair has spoken once
        if [int(one) for one in every] != list(range(self._place.world)):
            raise RuntimeError(f"the ranks found each other as {[int(one) for one in every]}")

    def _on_build(self, target: str, kwargs: dict[str, Any]) -> None:
        """Make the object this rank serves; ``target`` with a leading dot is a module of this library."""
        import torch

        module, _, name = target.partition(":")
        factory = getattr(importlib.import_module(module, "wan_local"), name)
        with torch.no_grad():
            self._served = factory(self._place, **kwargs)

    def _on_call(self, method: str, args: Sequence[Any], first: bool) -> Any:
        """Call a public method; with ``first`` only rank 0 sends its result back."""
        import torch

        if method.startswith("_"):
            raise AttributeError(f"{method} is not a public method")
        with torch.no_grad():  # grad mode belongs to a thread, and Ray may change the thread
            value = getattr(self._served, method)(*args)
        return None if first and self._place is not None and self._place.rank else value

    def _on_rest(self) -> None:
        """Leave to others what torch keeps for the next tensors: between two runs a card belongs to everybody."""
        import torch

        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def describe(error: BaseException) -> dict[str, str]:
    """An exception as text. ``kind``: ``"memory"``, ``"peer"`` (another rank's failure as seen here) or ``"error"``."""
    name = type(error).__name__
    text = one_line(error) or "no further text"
    return {"kind": _kind(error, name, text), "text": f"{name}: {text}{_where(error)}"}


def _kind(error: BaseException, name: str, text: str) -> str:
    low = text.lower()
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "out of memory" in low:
        return "memory"
    if name.startswith("Dist") and name.endswith("Error"):
        return "peer"
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
    return "peer" if isinstance(error, RuntimeError) and any(sign in low for sign in signs) else "error"


def _where(error: BaseException) -> str:
    """File and line of the innermost frame that is not torch's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    if not frames:
        return ""
    name = frames[-1].filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f" ({name}:{frames[-1].lineno})"
