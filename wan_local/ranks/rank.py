"""What one rank does, the same object in a process of ours and in a Ray worker: answers one message at a time.

A process of ours (:func:`main`) has three threads. The main one works, so that CUDA and torch.distributed live where
they were made. One reads, and ends the process the moment the driver is gone, whatever the main thread is blocked in;
it also answers "are you there", so a rank that waits for another is not taken for a frozen one. One watches for a new
parent (a copy of the driver's end of the pipe may live on in a process that the driver has forked).
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import one_line
from .messages import Buffer, Channel, Fields, Header, decode, encode, to_the_driver
from .rendezvous import Rendezvous, bind_gloo

LIBRARY = Path(__file__).resolve().parents[1]
PING, PONG = b"ping", b"pong"
WATCH_SECONDS = 0.5
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - in NCCL's words where GPUs of one machine have no room to exchange in


@dataclass(frozen=True, kw_only=True, slots=True)
class RankInfo:
    """Which rank this is; the first argument of the class it builds. torch.distributed is up by then.

    Attributes:
        rank: ``0..world - 1``.
        world: number of ranks.
        device: ``"cpu"`` or ``"cuda:N"`` as this process counts; it is the current device.
        backend: ``"gloo"`` or ``"nccl"``.
        timeout: seconds that one collective may take before it fails by itself.
    """

    rank: int
    world: int
    device: str
    backend: str
    timeout: float


class Rank:
    """Serves the driver's messages; never raises, a failure is an answer."""

    def __init__(self) -> None:
        self._info: RankInfo | None = None
        self._rendezvous = Rendezvous()
        self._served: Any = None

    def leave(self) -> None:
        """What remains to be done when the process ends, however that comes about. From any thread, and quick."""
        self._rendezvous.leave()

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
        return versions()

    def _on_rendezvous(self, host: str, world: int, limit: float) -> Fields:
        """Rank 0 opens the rendezvous; where it is."""
        return self._rendezvous.open(host, world, limit)

    def _on_join(self, info: Fields, host: str, where: Fields, limit: float) -> None:
        """Meet the other ranks.

        Args:
            host: this rank's own address.
            where: the rendezvous, as ``_on_rendezvous`` gave it.
        """
        import torch
        import torch.distributed as dist

        self._info = RankInfo(**info)
        store = self._rendezvous.join(where, self._info.world, limit)
        bind_gloo(host)
        bound: Fields = {}
        if self._info.device.startswith("cuda"):
            torch.cuda.set_device(torch.device(self._info.device))
            if self._info.backend == "nccl":  # the communicator is made now, not inside the first step
                bound["device_id"] = torch.device("cuda", torch.cuda.current_device())
        dist.init_process_group(
            self._info.backend,
            store=store,
            rank=self._info.rank,
            world_size=self._info.world,
            timeout=timedelta(seconds=self._info.timeout),
            **bound,
        )
        mine = torch.tensor([self._info.rank], device=bound.get("device_id", "cpu"))
        every = [torch.empty_like(mine) for _ in range(self._info.world)]
        dist.all_gather(every, mine)  # every pair has spoken once
        if [int(one) for one in every] != list(range(self._info.world)):
            raise RuntimeError(f"the ranks found each other as {[int(one) for one in every]}")

    def _on_build(self, target: str, kwargs: Fields) -> None:
        """Make the object this rank serves; ``target`` with a leading dot is a module of this library."""
        import torch

        module, _, name = target.partition(":")
        factory = getattr(importlib.import_module(module, "wan_local"), name)
        with torch.no_grad():
            self._served = factory(self._info, **kwargs)

    def _on_call(self, method: str, args: Sequence[Any], first: bool) -> Any:
        """Call a public method; with ``first`` only rank 0 sends its result back."""
        import torch

        if method.startswith("_"):
            raise AttributeError(f"{method} is not a public method")
        with torch.no_grad():  # grad mode belongs to a thread, and Ray may change the thread
            value = getattr(self._served, method)(*args)
        return None if first and self._info is not None and self._info.rank else value

    def _on_free_memory(self) -> None:
        """Give back what the object can do without until its next call (its ``rest``, if it has one), and what torch
        keeps for the next tensors: between two runs a GPU belongs to everybody."""
        import torch

        if hasattr(self._served, "rest"):
            self._served.rest()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def describe(error: BaseException) -> dict[str, str]:
    """An exception as text. ``kind``: ``"memory"``, ``"peer"`` (another rank's failure as seen here) or ``"error"``."""
    name = type(error).__name__
    text = one_line(error) or "no further text"
    if SHARED_MEMORY in text:
        text += "; a container has little of it: start Docker with --shm-size=1g or --ipc=host"
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


def versions() -> dict[str, str]:
    """What must be the same in every rank: Python, torch and this library's source."""
    import torch

    return {"Python": platform.python_version(), "torch": str(torch.__version__), "WanFLF2V pack": fingerprint()}


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve digits over the library's source files: equal if and only if the code is."""
    digest = hashlib.sha256()
    for path in sorted(LIBRARY.rglob("*.py"), key=lambda path: path.relative_to(LIBRARY).as_posix()):
        digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Names both versions of the first thing that differs; empty if nothing does."""
    for name, version in here.items():
        if there.get(name) != version:
            return f"{name} {there.get(name)} there, {version} here"
    return ""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; stopping is the driver's business
    channel = to_the_driver()
    inbox: queue.SimpleQueue[tuple[Header, list[bytearray]]] = queue.SimpleQueue()
    rank = Rank()
    threading.Thread(target=read, args=(channel, inbox, rank), daemon=True).start()
    threading.Thread(target=watch_the_parent, args=(rank,), daemon=True).start()
    while True:
        header, buffers = inbox.get()
        answer: tuple[Header, list[Buffer]] = rank.handle(header, buffers)
        try:
            channel.send(*answer)
        except OSError:
            leave(rank, 1)


def leave(rank: Rank, status: int = 0) -> None:
    """End this process at once, whatever its threads are blocked in."""
    try:
        rank.leave()
    finally:
        os._exit(status)


def read(channel: Channel, inbox: queue.SimpleQueue[tuple[Header, list[bytearray]]], rank: Rank) -> None:
    try:
        while True:
            header, buffers = channel.receive()
            if header == PING:
                channel.send(PONG)
            else:
                inbox.put((header, buffers))
    finally:  # end of file, or anything else: without a driver there is nothing to do
        leave(rank)


def watch_the_parent(rank: Rank) -> None:
    """End when the process that started this one is no longer its parent. Windows knows no such thing."""
    if os.name == "nt":
        return
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    leave(rank)
