"""The tables of ``docs/memory.md``: ``python -m benchmarks.memory_tables`` prints them as they stand there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from wan_local.config import WAN_EXPERT_14B, WAN_FLF2V_14B, WAN_VAE, TransformerConfig
from wan_local.longer import WINDOWS, Longer
from wan_local.memory import Weights, plan, stored
from wan_local.memory.activations import RESERVE, vae_decode_work, vae_encode_work
from wan_local.memory.plan import LARGEST, LONG, choose_offloaded, everything_fits, resident_bytes, sampling_work
from wan_local.shapes import Grid

GB, GIB = 1e9, 2**30
GPUS = (8, 12, 16, 24, 32, 48, 80)
CLIPS = {
    "832x480, 81 frames": Grid(frames=81, height=480, width=832),
    "1280x720, 81 frames": Grid(frames=81, height=720, width=1280),
    "832x480, 161 frames": LONG,
}
STORED = {"bfloat16": 2, "blocks in fp8": 1}  # bytes a number


def by_stage() -> Iterator[str]:
    """Peak GB of each stage under every way of offloading."""
    for kind, itemsize in STORED.items():
        config, weights = stored.released(torch.bfloat16, itemsize)
        for clip, grid in CLIPS.items():
            yield f"{kind}, {clip}:"
            yield ""
            yield "| `--offload` | text | image | VAE encode | sampling | VAE decode | GPU at most | host |"
            yield "|---|---|---|---|---|---|---|---|"
            for setting in plan(config, weights, grids=[grid])[0].settings:
                stages = " | ".join(f"{stage.device / GB:.1f}" for stage in setting.stages)
                yield f"| {setting.offload} | {stages} | {setting.device / GB:.1f} | {setting.host / GB:.1f} |"
            yield ""


def by_card(model: TransformerConfig = WAN_FLF2V_14B) -> Iterator[str]:
    """The fewest blocks offloaded with which a clip fits into a GPU."""
    columns = [(itemsize, clip) for itemsize in STORED.values() for clip in CLIPS]
    names = [f"{'fp8' if itemsize == 1 else 'bf16'} {clip}" for itemsize, clip in columns]
    yield "| GPU | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    models = {itemsize: stored.released(torch.bfloat16, itemsize, model) for itemsize in STORED.values()}
    for gpu in GPUS:
        cells = (setting(*models[itemsize], CLIPS[clip], gpu) for itemsize, clip in columns)
        yield f"| {gpu} GB | " + " | ".join(cells) + " |"


def of_experts() -> Iterator[str]:
    """The same for Wan2.2's pair, and what it takes of the host."""
    yield from by_card(WAN_EXPERT_14B)
    yield ""
    yield "| host memory for the pair, 1280x720, 81 frames | `--offload 0` | 20 | 40 |"
    yield "|---|---|---|---|"
    for kind, itemsize in STORED.items():
        found = plan(*stored.released(torch.bfloat16, itemsize, WAN_EXPERT_14B), grids=[LARGEST], settings=[0, 20, 40])
        yield f"| {kind} | " + " | ".join(f"{each.host / GB:.1f} GB" for each in found[0].settings) + " |"


def of_windows() -> Iterator[str]:
    """161 frames in one forward and in windows of 81: each stage, and the fewest blocks offloaded."""
    grids = [LONG, replace(LARGEST, frames=LONG.frames)]
    ways = {"at once": grids, "in windows": [Longer(way=WINDOWS).grid(grid) for grid in grids]}
    model = stored.released(torch.bfloat16, 2)
    yield "| 161 frames, bfloat16, `--offload 40` | VAE encode | sampling | VAE decode | host |"
    yield "|---|---|---|---|---|"
    for way, sizes in ways.items():
        for found in plan(*model, grids=sizes, settings=[40]):
            (only,) = found.settings
            stages = {stage.name: f"{stage.device / GB:.1f}" for stage in only.stages}
            cells = [stages[name] for name in ("VAE encode", "sampling", "VAE decode")]
            yield f"| {found.width}x{found.height}, {way} | {' | '.join(cells)} | {only.host / GB:.1f} |"
    yield ""
    columns = [(grid, f"{grid.width}x{grid.height}, {way}") for way, sizes in ways.items() for grid in sizes]
    yield "| GPU | " + " | ".join(name for _, name in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for gpu in GPUS:
        yield f"| {gpu} GB | " + " | ".join(setting(*model, grid, gpu) for grid, _ in columns) + " |"


def setting(config: TransformerConfig, weights: Weights, grid: Grid, gpu: int) -> str:
    """What ``--offload auto`` comes to on an empty GPU of so many GiB."""
    free = gpu * GIB
    if everything_fits(config, weights, WAN_VAE, grid, free):
        return "none"
    offloaded = choose_offloaded(config, weights, grid, free)
    if resident_bytes(weights, offloaded) + sampling_work(config, weights, grid) + RESERVE > free:
        return "does not fit"
    vae = weights.vae + max(vae_encode_work(WAN_VAE, grid.latent_shape), vae_decode_work(WAN_VAE, grid.latent_shape, 2))
    return f"{offloaded}, VAE in tiles" if vae + RESERVE > free else str(offloaded)


if __name__ == "__main__":
    print("\n".join([*by_stage(), *by_card(), "", *of_experts(), "", *of_windows()]))
