"""``make bench``: ratios, ours over diffusers, where the time goes, and the memory of a decode by length.

The two are timed in turn in one process, so that a machine that slows down slows both; what counts is the median of
the pairwise ratios. At most 1 is the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch

from wan_local.config import WAN_FLF2V_14B, WAN_VAE, TransformerConfig, VAEConfig
from wan_local.shapes import Grid

from . import shares
from .pairs import Pair, transformer_pair, vae_pairs

LENGTHS = (17, 49, 97)
WIDTHS, DTYPES = (512, 1024, 1536), (torch.float32, torch.bfloat16)  # of the transformers that a CPU does in seconds
SAME = 0.03  # relative; bfloat16 rounds differently on both sides, float32 agrees to 1e-5
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", help="also write benchmarks/results/<name>.md and .json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(pair, args.rounds, args.device) for pair in pairs(args.device)]
    memory = {
        name: {frames: decode_memory(frames, settled=settled) for frames in LENGTHS}
        for name, settled in (("in use", True), ("with what the allocator keeps", False))
    }
    text = table(rows, memory, args)
    print(text)
    if args.name:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{args.name}.md").write_text(text + "\n")
        data = {"rows": rows, "decode_memory": memory, "machine": machine(args)}
        (RESULTS / f"{args.name}.json").write_text(json.dumps(data, indent=1) + "\n")


def pairs(device: str) -> list[Pair]:
    """Work of a size the machine does in seconds; on a GPU the released networks' own widths."""
    if device == "cpu":
        networks = [
            TransformerConfig(
                dim=dim, ffn_dim=8 * dim // 3, num_heads=dim // 128, num_layers=3, text_dim=512, image_dim=256,
                image_tokens=514,
            )
            for dim in WIDTHS
        ]  # fmt: skip
        grid = Grid(frames=17, height=256, width=256)
        clip = Grid(frames=17, height=128, width=128)
        return [
            *(transformer_pair(each, grid, device, dtype) for each in networks for dtype in DTYPES),
            *vae_pairs(VAEConfig(dim=32), clip, device, torch.float32),
            *vae_pairs(VAEConfig(dim=96), Grid(frames=9, height=64, width=64), device, torch.float32),
            *vae_pairs(VAEConfig(dim=96), Grid(frames=9, height=128, width=128), device, torch.float32),
        ]
    wide = TransformerConfig(
        dim=WAN_FLF2V_14B.dim, ffn_dim=WAN_FLF2V_14B.ffn_dim, num_heads=WAN_FLF2V_14B.num_heads, num_layers=2
    )
    clip = Grid(frames=81, height=480, width=832)
    return [
        transformer_pair(wide, Grid(frames=81, height=720, width=1280), device, torch.bfloat16),
        *vae_pairs(WAN_VAE, clip, device, torch.float32),
        *vae_pairs(WAN_VAE, clip, device, torch.bfloat16),
    ]


@torch.inference_mode()
def measure(pair: Pair, rounds: int, device: str) -> dict[str, object]:
    """Times and the pairwise ratio; the first round warms up and is dropped."""
    check_same(pair)
    times: list[tuple[float, float]] = []
    for turn in range(rounds + 1):
        if turn % 2:  # neither is always the one that finds the caches warm
            theirs_time = timed(pair.theirs, device)
            times.append((timed(pair.ours, device), theirs_time))
        else:
            times.append((timed(pair.ours, device), timed(pair.theirs, device)))
    ours, theirs = zip(*times[1:], strict=True)
    ratios = [a / b for a, b in times[1:]]
    row: dict[str, object] = {
        "name": pair.name,
        "ours": statistics.median(ours),
        "diffusers": statistics.median(theirs),
        "ratio": [min(ratios), statistics.median(ratios), max(ratios)],
        "tflops": pair.work / statistics.median(ours) / 1e12 if pair.work else None,
        "shares": {"ours": shares.shares(pair.ours, device), "diffusers": shares.shares(pair.theirs, device)},
    }
    print(f"{pair.name}: ratio {row['ratio']}", file=sys.stderr, flush=True)
    return row


def check_same(pair: Pair) -> None:
    """Both sides must do the same work, or their times say nothing."""
    ours, theirs = pair.ours().float(), pair.theirs().float()
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not error < SAME:
        raise SystemExit(f"{pair.name}: the two differ by {error:.1e}")


def timed(work: object, device: str) -> float:
    assert callable(work)
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def decode_memory(frames: int, *, settled: bool) -> int:
    """Peak bytes of a process that decodes ``frames`` frames in a stream.

    Args:
        frames: of the clip.
        settled: with glibc's mmap threshold fixed, so that freed blocks go back at once and what is measured is what
            is in use; otherwise as any process runs, with the blocks that the allocator keeps.
    """
    command = [sys.executable, "-m", "benchmarks.decode_memory", str(frames)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"} if settled else dict(os.environ)
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    return int(done.stdout.split()[0])


def machine(args: argparse.Namespace) -> str:
    name = torch.cuda.get_device_name() if args.device != "cpu" else platform.machine()
    return f"{name}, {args.threads} threads, torch {torch.__version__}, {date.today()}"


def table(rows: list[dict], memory: dict[str, dict[int, int]], args: argparse.Namespace) -> str:
    lines = [
        f"Ours against diffusers, {machine(args)}, {args.rounds} rounds in turn",
        "",
        "| work | ours s | diffusers s | ratio min | median | max | TFLOP/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = " | ".join(f"{ratio:.2f}" for ratio in row["ratio"])
        rate = f"{row['tflops']:.2f}" if row["tflops"] else ""
        lines.append(f"| {row['name']} | {row['ours']:.3f} | {row['diffusers']:.3f} | {spread} | {rate} |")
    lines += ["", *where_the_time_goes(rows)]
    lengths = " | ".join(map(str, LENGTHS))
    lines += ["", f"| peak memory of a decode, MiB, by frames | {lengths} | max/min |"]
    lines.append("|---|" + "---|" * (len(LENGTHS) + 1))
    for name, sizes in memory.items():
        shown = " | ".join(f"{size / 2**20:.0f}" for size in sizes.values())
        lines.append(f"| {name} | {shown} | {max(sizes.values()) / min(sizes.values()):.3f} |")
    return "\n".join(lines)


def where_the_time_goes(rows: list[dict]) -> Iterator[str]:
    """Shares in percent, ours / diffusers, and the ratios that follow from them."""
    kinds = (*shares.KERNELS, shares.REST)
    yield f"| time, %, ours / diffusers | {' | '.join(kinds)} | ratio at equal kernels | with no rest |"
    yield "|---|" + "---|" * (len(kinds) + 2)
    for row in rows:
        ours, theirs = row["shares"]["ours"], row["shares"]["diffusers"]
        cells = " | ".join(f"{100 * ours[kind]:.0f} / {100 * theirs[kind]:.0f}" for kind in kinds)
        found = shares.ratios(ours, theirs)
        ratios = " | ".join(f"{each:.2f}" for each in found) if found else " | "
        yield f"| {row['name']} | {cells} | {ratios} |"
