"""The tables of ``docs/multi_gpu.md``: ``python -m benchmarks.multi_gpu_plan``. Paper, not measurement."""

from __future__ import annotations

import torch

from wan_local.config import WAN_FLF2V_14B
from wan_local.flops import transformer_forward
from wan_local.memory.stored import released
from wan_local.parallel.degrees import Degrees, choose
from wan_local.parallel.plan import GpuRates, gpu_bytes, moved, step_seconds
from wan_local.shapes import Grid

SIZES = (Grid(frames=81, height=480, width=832), Grid(frames=81, height=720, width=1280))
# flops: what one GPU's published step comes to over the operations of a step. links: what is commonly reached of
# NVLink 4 (450 GB/s) and PCIe 4 x16 (32 GB/s) in one direction. network: 100 Gbit/s.
GPUS = (
    GpuRates(name="H100", flops=352e12, link=300e9, memory=80e9),
    GpuRates(name="H200", flops=539e12, link=300e9, memory=141e9),
    GpuRates(name="4090", flops=150e12, link=20e9, memory=24e9),
)
COUNTS = (1, 2, 4, 5, 8)


def main() -> None:
    print("| size | operations of a guided step | 4090 s/step |\n|---|---|---|")
    for grid in SIZES:
        print(alone(grid, GPUS[-1]))
    for grid in SIZES:
        print(f"\n### {grid.width}x{grid.height}, 81 frames ({grid.tokens:,} tokens), guided\n")
        print("| GPUs | split | leaves a GPU in a step | with fsdp | on a GPU | with fsdp | "
              + " | ".join(f"{rates.name} s/step" for rates in GPUS) + " |")  # fmt: skip
        print("|---" * (6 + len(GPUS)) + "|")
        for count in COUNTS:
            print(row(grid, count, 1))
        for count in (4, 8, 16):
            print(row(grid, count, 2))


def alone(grid: Grid, rates: GpuRates) -> str:
    """One GPU that holds the whole model, in fp8 if not in bfloat16."""
    flops = transformer_forward(WAN_FLF2V_14B, grid)
    seconds = step_seconds(flops, moved(WAN_FLF2V_14B, grid, Degrees()), Degrees(), rates)
    return f"| {grid.width}x{grid.height} | 2 x {flops / 1e15:.2f} PFLOP | {seconds:.1f} |"


def row(grid: Grid, gpus: int, machines: int) -> str:
    config, weights = released(torch.bfloat16, 2)
    degrees, _ = choose(gpus, config.num_heads)
    flops = transformer_forward(config, grid)
    plain = moved(config, grid, degrees)
    dealt = moved(config, grid, degrees, weights=weights.transformer) if gpus > 1 else plain
    name = f"{gpus}" if machines == 1 else f"2 machines of {gpus // 2}"
    held = [gpu_bytes(config, weights, grid, degrees, fsdp=fsdp) / 1e9 for fsdp in (False, gpus > 1)]
    times = []
    for rates in GPUS:
        ways = [(size, way) for size, way in zip(held, (plain, dealt), strict=True) if size * 1e9 < 0.94 * rates.memory]
        if not ways:
            times.append("too large")
            continue
        seconds = step_seconds(flops, ways[0][1], degrees, rates, machines=machines)
        times.append(f"{seconds:.1f}{' (fsdp)' if ways[0][1] is not plain else ''}")
    return (
        f"| {name} | {short(degrees)} | {gigabytes(plain.all)} | {gigabytes(dealt.all)} | {held[0]:.0f} GB | "
        f"{held[1]:.0f} GB | " + " | ".join(times) + " |"
    )


def short(degrees: Degrees) -> str:
    parts = {"cfg": degrees.cfg, "ulysses": degrees.ulysses, "ring": degrees.ring}
    return " x ".join(f"{name} {value}" for name, value in parts.items() if value > 1) or "-"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
