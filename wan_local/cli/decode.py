"""``python -m wan_local decode LATENTS``: latents that a failed run left behind, to a video."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from itertools import chain
from pathlib import Path

from ..errors import InputError
from ..settings import FPS
from .dtypes import add_vae_dtype, dtype_of
from .progress_bar import ProgressBar
from .results import show


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "decode",
        help="decode latents that an earlier run kept",
        description="Decode the .latents.safetensors that `generate` or a node in ComfyUI keeps when decoding or "
        "writing fails.",
        allow_abbrev=False,
    )
    parser.add_argument("latents", metavar="LATENTS", help="the .latents.safetensors file")
    parser.add_argument("--model", required=True, metavar="PATH", help="model folder, or a VAE file")
    parser.add_argument("--output", required=True, metavar="VIDEO", help=".mp4, .mov or .mkv")
    parser.add_argument("--fps", type=float, default=FPS, metavar="N", help="frames a second (default: %(default)g)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: auto)")
    parser.add_argument("--tiling", default="auto", metavar="HOW",
                        help="PIXELS: the VAE works in square tiles of that side; off; auto (default): only where "
                             "whole frames don't fit")  # fmt: skip
    add_vae_dtype(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    tiling, rate = _checked(args)
    import torch

    from .. import kept, video, weights
    from ..frames import frames_of
    from ..memory import FittingVAE
    from ..parts import choose_device
    from ..vae import decode_dtype

    video.check_path(args.output)
    latents, about = kept.read(Path(args.latents)), kept.about(Path(args.latents))
    tags = {name: text for name, text in about.items() if name == video.APPROXIMATIONS}
    device = choose_device(None if args.device == "auto" else args.device)
    vae = weights.load_vae(args.model, dtype=torch.float32, device=device)
    bar = ProgressBar(sys.stderr)
    fitting = FittingVAE(vae, tiling, dtype_of(args.vae_dtype) or decode_dtype(device))
    clips = (frames_of(fitting, vae.denormalise(clip.to(device)), bar) for clip in latents.split(1))
    try:
        video.write(chain.from_iterable(clips), args.output, rate, metadata=tags)
    finally:
        bar.close()
    show(f"video {args.output}")


def _checked(args: argparse.Namespace) -> tuple[str | int, Fraction]:
    """Way of tiling and frame rate; wrong ones are wrong use: exit status 2."""
    from ..memory import check_tiling
    from ..video import check_fps

    try:
        return check_tiling(args.tiling), check_fps(args.fps)
    except InputError as error:
        args.parser.error(str(error))
        raise  # never comes to this: the line above ends the program
