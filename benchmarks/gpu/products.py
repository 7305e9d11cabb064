"""Matrix products at the real shapes, in bfloat16 and in fp8, and what is around the latter."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional

from wan_local.quantised.matmul import float8_linear

from .lab import Lab

E4M3 = torch.float8_e4m3fn


def measure(lab: Lab) -> None:
    rows, dim, ffn = lab.grids["720p"].tokens, lab.config.dim, lab.config.ffn_dim
    for outputs, inputs in ((dim, dim), (ffn, dim), (dim, ffn)):
        x, weight, bias = lab.noise(rows, inputs), lab.noise(outputs, inputs) * 0.02, lab.noise(outputs)
        work = 2 * rows * outputs * inputs / 1e12
        name = f"{inputs} to {outputs}"
        seconds = lab.timed(partial(functional.linear, x, weight, bias), rounds=3)
        lab.tell(f"bfloat16, {name}", work / seconds, "TFLOP/s", ms=seconds * 1e3, expected="790 on an H100")
        if lab.has_float8:
            small, stored, one = x.to(E4M3), weight.to(E4M3), torch.ones((), device=lab.device)
            scales = {"scale_a": one, "scale_b": one}
            alone = partial(torch._scaled_mm, small, stored.t(), bias=bias, out_dtype=x.dtype, **scales)
            bare = lab.timed(alone, rounds=3)
            whole = lab.timed(partial(float8_linear, x, stored, one.view(1, 1), bias), rounds=3)
            lab.tell(
                f"fp8, {name}",
                work / whole,
                "TFLOP/s",
                ms=whole * 1e3,
                product_alone_ms=bare * 1e3,
                expected="more than bfloat16",
            )
