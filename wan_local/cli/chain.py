"""``python -m wan_local chain``: images, one after the other, to one video."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import notices
from ..errors import InputError
from ..progress import Progress
from ..settings import Settings
from ..words import counted
from . import generate, repair_option, several_gpus
from .lora_option import parse
from .results import show

if TYPE_CHECKING:
    from ..chain import Segment
    from ..parts import Parts

DESCRIPTION = """\
Make a video that goes from image to image, a clip from each to the next.

example:
  %(prog)s a.png b.png c.png --model weights/nano \\
      --prompt "a red disc moves right" --output out.mp4

The latents of every clip are kept. After a stop, a crash or a change the same command makes what is not there yet.
"""
SEED = "-1 draws one and says which; to go on after a stop, name that one (default: %(default)s)"
FOLDER = ".chain"  # of what is kept, beside the video


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "chain",
        help="make a video that goes from image to image",
        description=DESCRIPTION,
        epilog=generate.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="2 or more, of any size")
    needed = parser.add_argument_group("needed")
    needed.add_argument("--model", required=True, metavar="FOLDER", help="as for generate")
    needed.add_argument("--prompt", required=True, metavar="TEXT",
                        help="of all clips; or one for each, with a line --- between them")  # fmt: skip
    needed.add_argument("--output", required=True, metavar="VIDEO", help="the video to write: .mp4, .mov or .mkv")
    more = parser.add_argument_group("the chain")
    more.add_argument("--loop", action="store_true", help="go from the last image back to the first")
    more.add_argument("--keep", metavar="FOLDER",
                      help=f"where latents are kept (default: the video's name with {FOLDER}); may be deleted at any "
                           "time")  # fmt: skip
    repair_option.add_to(more)
    generate.add_options(parser, SEED)
    parser.set_defaults(run=run, parser=parser, seed=generate.KEPT_SEED)


def run(args: argparse.Namespace) -> None:
    settings, rate, offload, tiling = generate.checked(args)
    parts = generate.parts_of(args)
    several_gpus.check(args)
    from .. import images
    from ..chain import segments_of, split_prompts

    try:
        read = [images.read(path) for path in args.images]
        segments = segments_of(read, split_prompts(args.prompt), loop=args.loop)
    except InputError as error:
        if len(args.images) < 2:
            args.parser.error(str(error))
        raise
    make(args, segments, settings, rate, offload, tiling, parts)


def make(
    args: argparse.Namespace, segments: Sequence[Segment], settings: Settings, rate: Fraction, offload: str | int,
    tiling: str | int, parts: Parts,
) -> None:  # fmt: skip
    """Load the model, make what is not kept, write the video; say how good the joins are."""
    from .. import output, video
    from ..approximations import named
    from ..chain import Chain, tell_of_stills

    output.check_apart({"--output": args.output}, {"--keep": args.keep}, alone=False)
    video.check_path(args.output)
    folder = Path(args.keep) if args.keep else Path(args.output).with_suffix(FOLDER)
    output.check_writable(folder / "clip")  # what can't be kept is lost with the next stop
    began = time.monotonic()
    with generate.showing() as bar:
        tell_of_stills(segments, settings.length)
        pipeline, settings, lines = generate.load(args, settings, offload, tiling, parts, bar)
        chain = Chain(pipeline, segments, settings, loop=args.loop, folder=folder, model=name_of_model(args))
        grid, scale = chain.grid, pipeline.vae.config.upscale
        video.check_path(args.output, need_bytes=chain.frames * grid.height * grid.width * scale**2 // 4)
        made = chain.made_before()
        kept = [f"{made} of {counted(len(segments), 'clip')} made before, in {folder}"] if made else []
        show(*lines, f"seed {chain.settings.seed}", *kept)
        sampled = chain.sample(bar)
        joins = chain.joins()
        decoded, told = chain.decode_stream(sampled, bar), ""
        if args.repair:
            how = partial(repair_option.repair, how=args.repair, fit=settings.fit, pipeline=pipeline, on_progress=bar)
            decoded, told = chain.repaired(decoded, how)
        about = named(settings.approximations)
        video.write(joins.passing(decoded), args.output, rate, metadata={video.APPROXIMATIONS: about})
        bar(Progress(stage="write", done=chain.frames, total=chain.frames))
    show(f"video {args.output} ({counted(chain.frames, 'frame')}, {grid.width * scale}x{grid.height * scale}, "
         f"{float(rate):g} fps, {time.monotonic() - began:.1f} s, {about})",
         *map(str, joins.report()), *told.splitlines())  # fmt: skip


def name_of_model(args: argparse.Namespace) -> str:
    """Of the files, and of the choices that decide what comes out of them."""
    from ..encoders.cache import identity
    from ..weights.experts import find_pair

    with notices.listening(lambda text: None):  # told when they were loaded
        pair = find_pair(args.model, args.model_low, args.boundary)
    model, both = Path(args.model), (pair.high, pair.low) if pair else ()
    # One of two experts may have been found beside the other.
    models = [path for path in dict.fromkeys((model, *both)) if model not in path.parents]
    named = (args.vae, args.text_encoder, args.image_encoder, args.tokenizer)
    loras = [parse(text).path for text in args.lora]
    files = [Path(path) for path in (*models, *named, *loras) if path and Path(path).exists()]
    boundary = args.boundary if pair is None else pair.boundary
    return identity(files, args.lora, args.dtype, boundary, args.unpack, args.fp8_matmul)
