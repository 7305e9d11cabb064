"""Every attention kernel at the real lengths: its rate, and 64 of its rows against float64."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wan_local.attention import BACKENDS, Attend, check, choose, sdpa

from .lab import Lab, off_by

EXACT, ROUGH = 1e-2, 8e-2  # errors allowed to kernels in bfloat16 and in 8 bits
TORCH = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
SEEN = {"torch's choice": 596, "cudnn": 596, "flash": 359, "efficient": 182}  # TFLOP/s at 720p, H100 with cuDNN 9.19


Problem = tuple[Tensor, Tensor, Tensor]  # queries, keys and values


def measure(lab: Lab) -> None:
    for size, grid in lab.grids.items():
        q, k, v = lab.noise(3, 1, grid.tokens, lab.config.num_heads, lab.config.head_dim)
        problem = (q, k, v)
        kernel(lab, size, problem, "torch's choice", sdpa.attend, EXACT)
        for backend in TORCH if lab.on_gpu else ():
            with sdpa_kernel([backend]):
                kernel(lab, size, problem, backend.name.lower().removesuffix("_attention"), sdpa.attend, EXACT)
        auto = choose("auto")
        kernel(lab, size, problem, "auto", auto, EXACT)
        lab.tell(f"auto is, {size}", " ".join(getattr(auto, "used", {}).values()) or "sdpa")
        for name, module in BACKENDS.items():
            if module is sdpa:
                continue
            if (reason := module.why_not()) is not None:
                lab.tell(f"{name}, {size}", "not used", why=reason[:120])
            else:
                kernel(lab, size, problem, name, choose(name), ROUGH)
    cross(lab)


def kernel(lab: Lab, size: str, problem: Problem, name: str, attend: Attend, allowed: float) -> None:
    """One kernel; that it fails is a result too, and the others are still to be seen."""
    q = problem[0]
    try:
        error = check.error(attend(*problem), *problem)
        seconds = lab.timed(lambda: attend(*problem))
    except Exception as failure:
        lab.tell(f"{name}, {size}", "failed", why=" ".join(str(failure).split())[:150], holds=False)
        return
    work = 4 * q.shape[1] ** 2 * q.shape[2] * q.shape[3]
    expected = f"{SEEN[name]} on an H100" if size == "720p" and name in SEEN else ""
    lab.tell(
        f"{name}, {size}",
        work / seconds / 1e12,
        "TFLOP/s",
        ms=seconds * 1e3,
        error=error,
        expected=expected,
        holds=error <= allowed,
    )


def cross(lab: Lab) -> None:
    """The two attentions to a prompt and to the images, whose 514 rows no tile divides."""
    q = lab.noise(1, lab.grids["720p"].tokens, lab.config.num_heads, lab.config.head_dim)
    for rows in (512, 514):
        k, v = lab.noise(2, 1, rows, lab.config.num_heads, lab.config.head_dim)
        right = sdpa.attend(q[:, : check.ROWS].float(), k.float(), v.float())
        error = off_by(sdpa.attend(q, k, v)[:, : check.ROWS], right)
        seconds = lab.timed(partial(sdpa.attend, q, k, v))
        lab.tell(f"to {rows} rows", seconds * 1e3, "ms", error=error, holds=error <= EXACT)
