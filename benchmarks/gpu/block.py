"""One block, whole models of them, and a compiled one. A guided step of the released model is 80 blocks."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from wan_local.compiled import compile_blocks
from wan_local.memory.activations import transformer_work
from wan_local.model import pieces
from wan_local.quantised import CastingLayers

from .lab import GIB, Lab, off_by
from .packs import packed

STORED = ("bfloat16", "fp8", "fp8 products", "Q8_0", "Q4_K")
SAME = 1e-2  # relative L2; where products are fused, bfloat16 is rounded elsewhere
SEEN = {"720p": "286 on an H100 before blocks were made lean", "480p": "73"}  # ms, bfloat16


def blocks_a_step(lab: Lab) -> int:
    return 2 * lab.config.num_layers  # cond and uncond


def measure(lab: Lab) -> None:
    for size, grid in lab.grids.items():
        x, context = lab.noise(1, grid.tokens, lab.config.dim, dtype=torch.float32), lab.context(grid)
        for stored in STORED:
            lab.need(15)
            block = lab.block(torch.bfloat16, nn if stored == "bfloat16" else CastingLayers)
            if stored != "bfloat16":
                packed(block, stored)
            before = lab.clear()
            seconds = lab.timed(partial(block, x, context), rounds=3)
            lab.tell(
                f"{stored}, {size}",
                seconds * 1e3,
                "ms",
                guided_step_s=seconds * blocks_a_step(lab),
                GB_beside_tokens=lab.peak() - before,
                expected=SEEN[size] if stored == "bfloat16" else "",
            )
        block = lab.block(torch.bfloat16)
        usual = pieces.MOST
        for most in (2048, 8192, 1 << 30):
            lab.need(15)
            pieces.MOST, before = most, lab.clear()
            seconds = lab.timed(partial(block, x, context), rounds=3)
            lab.tell(
                f"bfloat16, {size}, pieces of {most if most < 1 << 30 else 'everything'}",
                seconds * 1e3,
                "ms",
                GB_beside_tokens=lab.peak() - before,
            )
        pieces.MOST = usual
        del x, context, block
        lab.clear()


def measure_model(lab: Lab) -> None:
    """All blocks: a forward at both sizes, its memory against the plan."""
    before = lab.clear()
    model = lab.transformer(torch.bfloat16)
    weights = lab.clear() - before
    lab.tell("weights", weights, "GB", expected="32.8")
    for size, grid in reversed(lab.grids.items()):
        lab.need(30)
        given = lab.inputs(grid, torch.bfloat16)
        before = lab.clear()
        seconds = lab.timed(partial(model, *given), rounds=1, warm=0 if size == "720p" else 1)
        work, plan = lab.peak() - before, transformer_work(lab.config, grid, 2) / GIB
        finite = bool(torch.isfinite(model(*given)).all()) if lab.toy else True
        lab.tell(
            f"forward, {size}",
            seconds,
            "s",
            guided_step_s=2 * seconds,
            holds=finite,
            expected={"720p": "11.6 on an H100 before blocks were made lean", "480p": "3.0"}[size],
        )
        lab.tell(
            f"memory of a forward, {size}",
            work,
            "GB",
            plan=plan,
            expected="within a tenth of the plan",
            holds=None if lab.toy else 0.8 * plan <= work <= 1.1 * plan,
        )


def measure_compiled(lab: Lab) -> None:
    """One block of a model that was given to ``compile_blocks``."""
    grid = lab.grids["720p"]
    x, context = lab.noise(1, grid.tokens, lab.config.dim, dtype=torch.float32), lab.context(grid)
    model = lab.transformer(torch.bfloat16, layers=1)
    (block,) = model.blocks
    expected, tokens = block(x.clone(), context), x.clone()  # a block overwrites what it is given
    eager = lab.timed(lambda: block(tokens, context))
    lab.need(40)
    compile_blocks(model)
    first = lab.timed(lambda: block(tokens, context), rounds=1, warm=0)
    before = lab.clear()
    seconds = lab.timed(lambda: block(tokens, context), rounds=3)
    peak, error = lab.peak() - before, off_by(block(x, context), expected)
    lab.tell(
        "a block, 720p",
        seconds * 1e3,
        "ms",
        eager_ms=eager * 1e3,
        compile_s=first,
        error=error,
        guided_step_s=seconds * blocks_a_step(lab),
        GB_beside_tokens=peak,
        expected="less than eager",
        holds=error <= SAME,
    )
