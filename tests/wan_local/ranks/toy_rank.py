"""The object the ranks of the tests serve: everything that can go wrong, without a model. Imported by the ranks."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

import torch
import torch.distributed as dist


class Litter:
    other = None


class Toy:
    """Loads a small weight file (and counts that it did), then does what it is told."""

    def __init__(self, info, weights="", log="", fail="", nap=0.0):
        self.info = info
        time.sleep(nap if info.rank == info.world - 1 else 0)
        if fail and info.rank == info.world - 1:
            raise ValueError(fail)
        self.weights = torch.tensor([float(part) for part in weights.split()])
        if log:
            with Path(log).open("a") as file:
                file.write(f"{info.rank}\n")

    def nothing(self):
        return None

    def about(self):
        return {"info": dataclasses.asdict(self.info), "pid": os.getpid(), "grad": torch.is_grad_enabled()}

    def total(self):
        """A sum over the ranks: rank + 1 times the weights."""
        value = self.weights * (self.info.rank + 1)
        dist.all_reduce(value)
        return value

    def echo(self, *args):
        return args

    def fill(self, tensor):
        return tensor.fill_(1)  # an argument belongs to the rank

    def modules(self):
        return sorted(name for name in sys.modules if name.split(".")[0] in ("nodes", "comfy", "tests", "ray"))

    def path(self):
        return list(sys.path)

    def together(self, seconds, nap=0.02):
        """Collectives for a while, as the steps of a model do."""
        end = torch.tensor([time.monotonic() + seconds])
        while bool(self._all(time.monotonic() < float(end))):
            time.sleep(nap)
        return "done"

    def _all(self, more):
        flag = torch.tensor([1.0 if more else 0.0])
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return float(flag)

    def wait_for_the_last(self, tell=""):
        """Every rank but the last sits in a collective that the last one never enters."""
        if self.info.rank == self.info.world - 1:
            threading.Event().wait()
        if tell:
            Path(tell).write_text("in")
        dist.barrier()

    def wrong(self, kind, nap=0.0):
        """The last rank fails, the others sit in a collective."""
        if self.info.rank == self.info.world - 1:
            time.sleep(nap)
            if kind == "memory":
                raise MemoryError("cannot allocate 30 GiB")
            if kind == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 30.00 GiB")
            if kind == "exit":
                raise SystemExit("quietly")
            if kind == "peer":
                raise RuntimeError("Connection closed by peer")
            raise ValueError("bad weight\nin block 7")
        dist.all_reduce(torch.ones(10))

    def abort(self, text, number=0):
        """The last rank writes and ends by a signal, as CUDA, NCCL and C++ do; the others sit in a collective."""
        if self.info.rank == self.info.world - 1:
            os.write(2, text.encode())
            os.kill(os.getpid(), number or signal.SIGABRT)
        dist.barrier()

    def print(self, times, length):
        for _ in range(times):
            print("x" * length)

    def flags(self):
        return sys.flags.no_user_site, sys.flags.utf8_mode, "ignore::ImportWarning" in sys.warnoptions

    def litter(self):
        """Something that only the garbage collector finds."""
        gc.disable()
        one = Litter()
        one.other = one
        self.seen = weakref.ref(one)
        del one
        return self.litter_left()

    def litter_left(self):
        return int(self.seen() is not None)

    def never_sent(self):
        return object()

    def spoil(self):
        """What a careless library does: prints, and reads standard input."""
        print("a line on standard output", flush=True)
        os.write(1, b"bytes on standard output\n")
        return sys.stdin.read()
