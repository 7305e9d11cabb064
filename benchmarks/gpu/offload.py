"""Blocks in host memory: the same bits, what it costs, and its memory against the plan."""

from __future__ import annotations

import time
from functools import partial

import torch

from wan_local.memory import attach
from wan_local.memory.activations import transformer_work
from wan_local.memory.plan import Weights, resident_bytes
from wan_local.memory.storage import size_of, tensors_of

from .lab import GIB, Lab

BLOCKS = 12
MOST = 1.03  # times what it takes with everything resident


def measure(lab: Lab) -> None:
    blocks = 2 if lab.toy else BLOCKS
    for size, grid in reversed(lab.grids.items()):
        lab.need(40)
        model = lab.transformer(torch.bfloat16, layers=blocks)
        given = lab.inputs(grid, torch.bfloat16)
        expected = model(*given)
        resident = lab.timed(partial(model, *given), rounds=1, warm=0)
        model = model.to("cpu")
        sizes = tuple(size_of(tensors_of(block)) for block in model.blocks)
        weights = Weights(blocks=sizes, rest=size_of(tensors_of(model)) - sum(sizes), itemsize=2)
        for offloaded in (blocks, blocks // 2):
            lab.need(20)
            lab.clear()
            began = time.perf_counter()
            with attach(model, lab.device, offloaded):
                lab.wait()
                opening = time.perf_counter() - began
                got = model(*given)
                seconds = lab.timed(partial(model, *given), rounds=1, warm=0)
                peak = lab.peak()
            plan = (resident_bytes(weights, offloaded) + transformer_work(model.config, grid, 2)) / GIB
            holds = torch.equal(got, expected) and (lab.toy or (seconds <= MOST * resident and peak <= 1.1 * plan))
            lab.tell(
                f"{offloaded} of {blocks} blocks offloaded, {size}",
                seconds / resident,
                "x resident",
                same=torch.equal(got, expected),
                seconds=seconds,
                opening_s=opening,
                peak_GB=peak,
                plan_GB=plan,
                expected=f"<= {MOST}",
                holds=holds,
            )
    if lab.on_gpu:
        copies(lab)


def copies(lab: Lab) -> None:
    """What the way from host memory carries."""
    host = torch.empty(1 << 30, dtype=torch.uint8)
    there = torch.empty_like(host, device=lab.device)
    lab.tell("copy of pageable memory", host.nbytes / lab.timed(lambda: there.copy_(host)) / GIB, "GB/s")
    locked = host.pin_memory()
    seconds = lab.timed(lambda: there.copy_(locked, non_blocking=True))
    lab.tell("copy of page-locked memory", host.nbytes / seconds / GIB, "GB/s", expected="43 on an H100")
