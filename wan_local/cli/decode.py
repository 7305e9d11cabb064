"""``python -m wan_local decode LATENTS``: latents that a failed run left behind, to a video."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .progress_bar import ProgressBar


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "decode",
        help="decode latents that an earlier run kept",
        description="Decode the .latents.safetensors that `generate` keeps when decoding or writing fails.",
        allow_abbrev=False,
    )
    parser.add_argument("latents", metavar="LATENTS", help="the .latents.safetensors file")
    parser.add_argument("--model", required=True, metavar="PATH", help="model folder, or a VAE file")
    parser.add_argument("--output", required=True, metavar="VIDEO", help=".mp4, .mov or .mkv")
    parser.add_argument("--fps", type=float, default=16.0, metavar="N", help="frames a second (default: 16)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: auto)")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    import torch

    from .. import video, weights
    from ..generate import choose_device, decode_stream

    rate = video.check_fps(args.fps)
    video.check_path(args.output)
    latents = read_latents(Path(args.latents))
    device = choose_device(None if args.device == "auto" else args.device)
    vae = weights.load_vae(args.model, dtype=torch.float32, device=device)
    bar = ProgressBar(sys.stderr)
    try:
        video.write(decode_stream(vae, latents.to(device), bar), args.output, rate)
    finally:
        bar.close()
    print(f"video {args.output}")


def read_latents(path: Path) -> Any:
    """``[1, z, T, h, w]`` of a kept file, or :class:`InputError`."""
    from ..weights.formats import safetensors_file

    entries, _ = safetensors_file.read_header(path)
    entry = entries.get("latents")
    if entry is None or len(entry.shape) != 5:
        raise InputError(f"{path} holds no latents; give a .latents.safetensors file that `generate` kept")
    return entry.read().float()
