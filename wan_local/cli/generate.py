"""``python -m wan_local generate``: images at frames and a prompt to a video file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .. import notices
from ..errors import InputError, OutputError
from ..progress import Progress
from ..settings import (
    EXPERTS,
    FIT,
    FLF2V,
    FPS,
    LENGTH,
    MOST_MOTION,
    RANDOM_SEED,
    SAMPLER,
    STILL,
    Recipe,
    Settings,
    check_boundary,
)
from ..words import counted
from . import keeping, keyframe_option, longer_option, lora_option, repair_option, several_gpus, speed_options
from .cache_folder import default_folder
from .dtypes import DTYPES, add_vae_dtype, dtype_of
from .progress_bar import ProgressBar
from .results import show

if TYPE_CHECKING:
    from torch import Tensor

    from ..generate import Pipeline, Sampled
    from ..keyframes import Keyframe
    from ..parts import Parts

DESCRIPTION = """\
Make a video that starts at one image, ends at another, and passes others if you like.

example:
  %(prog)s --model weights/nano --first a.png --last b.png \\
      --prompt "a red disc moves right" --output out.mp4
"""
EPILOG = """\
Exit status: 0 done, 1 failed (one line says why), 2 wrong use, 130 stopped by Ctrl-C, 143 by SIGTERM.
A file that is there already is only replaced by a whole new one."""
SEED = "-1 draws one and says which (default; of a --loop it is 0, so that the same command goes on after a stop)"
KEPT_SEED = 0  # where clips are kept under names that the seed is a part of


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "generate",
        help="make a video from images and a prompt",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    needed = parser.add_argument_group("needed")
    needed.add_argument("--model", required=True, metavar="FOLDER",
                        help="model folder, diffusers or official layout; or one file with a transformer (safetensors, "
                             "fp8 or not, or GGUF), with the parts below beside it; of Wan2.2 the high-noise "
                             "one")  # fmt: skip
    needed.add_argument("--prompt", required=True, metavar="TEXT", help="what happens in the video")
    needed.add_argument("--output", required=True, metavar="VIDEO", help="the video to write: .mp4, .mov or .mkv")
    keyframe_option.add_to(parser.add_argument_group("the images, one at least"))
    add_options(parser)
    more = parser.add_argument_group("more results")
    repair_option.add_to(more)
    more.add_argument("--frames", metavar="FOLDER", help="also write the frames as numbered PNGs (new or empty folder)")
    more.add_argument("--sheet", metavar="PNG", help="also write a contact sheet of inputs and frames")
    more.add_argument("--loop", action="store_true",
                      help="add a clip that goes back to the beginning, for a video that is played in a loop: from the "
                           "last image to the first, or from where it ended if there is no --last")  # fmt: skip
    more.add_argument("--keep", metavar="FOLDER", help="of a loop: where the latents of both clips are kept")
    parser.set_defaults(run=run, parser=parser)


def add_options(parser: argparse.ArgumentParser, seed: str = SEED) -> None:
    """What can be said of any clip; ``seed`` is the help of that option."""
    _add_clip(parser.add_argument_group("the clip"))
    _add_sampling(parser.add_argument_group("how it is made"), seed)
    speed_options.add_to(parser.add_argument_group("faster, and not quite the same"))
    _add_parts(parser.add_argument_group("parts that are not in the model folder"))
    _add_memory(parser.add_argument_group("memory"))
    several_gpus.add_to(parser.add_argument_group("several GPUs"))


def _add_clip(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--negative", metavar="TEXT", help="what to keep away from (default: the official text)")
    group.add_argument("--width", type=int, metavar="PIXELS", help="multiple of 16 (default: from the first image)")
    group.add_argument("--height", type=int, metavar="PIXELS", help="multiple of 16 (default: from the first image)")
    group.add_argument("--length", type=int, default=LENGTH, metavar="FRAMES", help="4n+1 (default: %(default)s)")
    longer_option.add_to(group)
    group.add_argument("--fps", type=float, default=FPS, metavar="N", help="frames a second (default: %(default)g)")
    group.add_argument("--fit", default=FIT, metavar="HOW",
                       help="images of another aspect: crop (default), pad, stretch")  # fmt: skip
    group.add_argument("--motion", type=float, default=STILL, metavar="X",
                       help=f"above 1, at most {MOST_MOTION:g}: more motion between two images, 1.15 to 1.3 where a "
                            "clip hardly moves (default: %(default)g)")  # fmt: skip


def _add_sampling(group: argparse._ArgumentGroup, seed: str) -> None:
    group.add_argument("--steps", type=int, metavar="N",
                       help=f"sampling steps (default: {FLF2V.steps}, of Wan2.2 {EXPERTS.steps})")  # fmt: skip
    group.add_argument("--guidance", type=float, metavar="X",
                       help=f"guidance scale; 1 takes half the time (default: {FLF2V.guidance}, of Wan2.2 "
                            f"{EXPERTS.guidance})")  # fmt: skip
    group.add_argument("--low-guidance", type=float, metavar="X",
                       help="guidance scale of Wan2.2's low-noise expert (default: that of --guidance)")  # fmt: skip
    group.add_argument("--shift", type=float, metavar="X",
                       help=f"steps at high noise: of Wan2.1 16 for 720p, 3 to 5 for 480p (default: {FLF2V.shift:g}, "
                            f"of Wan2.2 {EXPERTS.shift:g})")  # fmt: skip
    group.add_argument("--sampler", default=SAMPLER, metavar="NAME", help="unipc (default), dpm++, euler")
    group.add_argument("--seed", type=int, metavar="N", help=seed)
    group.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH][@FIRST-LAST]",
                       help=lora_option.HELP)  # fmt: skip
    group.add_argument("--dtype", choices=DTYPES, default="auto",
                       help="of the networks; auto: bfloat16 on a GPU, float16 on one before Ampere, float32 on "
                            "a CPU")  # fmt: skip
    group.add_argument("--compile", action="store_true",
                       help="compile the transformer's blocks: faster steps, after a first one that waits for the "
                            "compiler; needs one (Triton on a GPU, g++ on a CPU)")  # fmt: skip
    add_vae_dtype(group)
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: auto)")


def _add_parts(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model-low", metavar="PATH", help="file or folder of Wan2.2's low-noise expert")
    group.add_argument("--boundary", type=float, metavar="X",
                       help="share of the timesteps, 0 to 1, from which on Wan2.2's high-noise expert works (default: "
                            "the folder's own, or 0.9)")  # fmt: skip
    group.add_argument("--vae", metavar="PATH", help="file or folder of the Wan2.1 VAE, one that upscales too")
    group.add_argument("--text-encoder", metavar="PATH", help="file or folder of umT5-xxl, fp8 or not, or GGUF")
    group.add_argument("--image-encoder", metavar="PATH", help="file or folder of CLIP ViT-H/14 (clip_vision_h)")
    group.add_argument(
        "--tokenizer", metavar="FOLDER", help="umT5's tokenizer, where text encoder and model bring none"
    )


def parts_of(args: argparse.Namespace) -> Parts:
    """Parts named on their own; a file with a transformer holds no others, so they are asked for here."""
    from ..parts import Parts
    from ..weights import load, sizes

    if Path(args.model).is_file():
        config = sizes.transformer_config(load.transformer_source(args.model))
        given = {"--vae": args.vae, "--text-encoder": args.text_encoder}
        if config.has_image_branch:
            given["--image-encoder"] = args.image_encoder
        missing = [name for name, path in given.items() if not path]
        if missing:
            args.parser.error(f"--model {args.model} is one file; give {', '.join(missing)} too, or a model folder")
    return Parts(
        vae=args.vae, text_encoder=args.text_encoder, image_encoder=args.image_encoder, tokenizer=args.tokenizer
    )


def _add_memory(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--offload", default="auto", metavar="HOW",
                       help="none: everything stays on the GPU; N: the parts take turns there and N transformer blocks "
                            "stay in host memory, coming one by one; auto (default): what fits. Of several GPUs "
                            "see --fsdp")  # fmt: skip
    folder = str(default_folder()).replace("%", "%%")
    group.add_argument("--tiling", default="auto", metavar="HOW",
                       help="PIXELS: the VAE works in square tiles of that side; off; auto (default): only where whole "
                            "frames don't fit, since tiles change the image a little")  # fmt: skip
    group.add_argument("--unpack", action="store_true",
                       help="make plain weights of fp8 or GGUF ones: faster steps, more memory")  # fmt: skip
    group.add_argument("--fp8-matmul", action="store_true",
                       help="multiply fp8 weights in fp8 and int8 ones in int8, on GPUs that can: faster, less "
                            "exact")  # fmt: skip
    group.add_argument("--cache", metavar="FOLDER",
                       help=f"where encoded prompts are kept for the next run (default: {folder})")  # fmt: skip
    group.add_argument("--no-cache", action="store_true", help="keep none, and use none that are kept")


def run(args: argparse.Namespace) -> None:
    settings, rate, offload, tiling = checked(args)
    keyframe_option.check(args)
    if args.keep and not args.loop:
        args.parser.error(f"--keep {args.keep} is for the clips of a --loop; leave it out: a clip alone is kept beside "
                          "its video where that can't be made")  # fmt: skip
    if args.loop and (args.frames or args.sheet):
        args.parser.error("--loop writes the video alone; leave --frames and --sheet out")
    parts = parts_of(args)
    several_gpus.check(args)
    from ..keyframes import placed

    keyframes = keyframe_option.read(args)
    given = placed(keyframes, settings.length)
    repair_option.check(args, given)
    if args.loop:
        return _loop(args, keyframes, settings, rate, offload, tiling, parts)
    height, width = next(iter(given.values())).images.shape[-2:]
    grid = settings.grid(width, height)
    _check_outputs(args, grid.frames * grid.height * grid.width)

    began = time.monotonic()
    with showing() as bar:
        pipeline, settings, lines = load(args, settings, offload, tiling, parts, bar)
        scale = pipeline.vae.config.upscale
        if scale > 1:  # there is more to write than was asked for
            _check_outputs(args, grid.frames * grid.height * grid.width * scale**2)
        show(*lines, f"seed {settings.seed}")
        sampled = pipeline.generate(None, None, args.prompt, settings, bar, keyframes=keyframes)
        try:
            found = _write(args, pipeline, sampled, given, rate, bar)
        except BaseException:
            bar.close()
            keeping.keep(sampled, args, given)
            raise
    size = f"{grid.width * scale}x{grid.height * scale}"
    show(f"video {args.output} ({counted(grid.frames, 'frame')}, {size}, {float(rate):g} fps, "
         f"{time.monotonic() - began:.1f} s, {sampled.approximated})", found)  # fmt: skip


def _loop(
    args: argparse.Namespace, keyframes: list[Keyframe], settings: Settings, rate: Fraction, offload: str | int,
    tiling: str | int, parts: Parts,
) -> None:  # fmt: skip
    """The clip, and one that returns from its last image to its first; or from its end, where no last image is."""
    from ..chain import Segment, returning
    from . import chain

    segments = [
        Segment(prompt=args.prompt, keyframes=tuple(keyframes)),
        returning(args.prompt, keyframes, settings.length),
    ]
    chain.make(args, segments, settings, rate, offload, tiling, parts)


@contextmanager
def showing() -> Iterator[ProgressBar]:
    """A bar on stderr, among which notices stand on lines of their own."""
    bar = ProgressBar(sys.stderr)
    notices.listen(lambda text: bar.say(f"warning: {text}"))
    try:
        yield bar
    finally:
        bar.close()


def load(
    args: argparse.Namespace, settings: Settings, offload: str | int, tiling: str | int, parts: Parts, bar: ProgressBar
) -> tuple[Pipeline, Settings, list[str]]:
    """The pipeline that was asked for, settings with the model's own values, and lines about what is on it."""
    from ..generate import Pipeline
    from ..parallel.group_model import denoisers_of
    from ..parts import choose_device, default_dtype

    device = choose_device(None if args.device == "auto" else args.device)
    if sys.stderr.isatty():  # in a log, a model that can't be loaded is one line
        bar(Progress(stage="load", done=0, total=1))
    _hush_transformers()
    dtype = dtype_of(args.dtype) or default_dtype(device)
    cache = None if args.no_cache else args.cache or default_folder()
    wanted = several_gpus.wanted(args)
    group = several_gpus.transformer(args, device, dtype, settings.guidance) if wanted else None
    loras = [] if wanted else lora_option.read(args)
    pipeline = Pipeline.from_pretrained(
        args.model, dtype=dtype, device=device, offload=offload if group is None else 0, cache=cache, parts=parts,
        tiling=tiling, low=args.model_low, boundary=args.boundary,
        denoisers=None if group is None else denoisers_of(group), unpack=args.unpack,
        float8_matmul=args.fp8_matmul, compiled=args.compile, vae_dtype=dtype_of(args.vae_dtype),
    )  # fmt: skip
    settings = _settings(args, pipeline.recipe, settings.seed)
    if loras:
        pipeline.use_loras([use for use, _ in loras])
    lines = [line for _, line in loras] if group is None else several_gpus.lines(group)
    bar(Progress(stage="load", done=1, total=1))
    return pipeline, settings, lines


def checked(args: argparse.Namespace) -> tuple[Settings, Fraction, str | int, str | int]:
    """Settings, frame rate, ways of offloading and of tiling; wrong ones are wrong use: exit status 2."""
    from ..memory import check_offload, check_tiling
    from ..video import check_fps

    if args.seed is None:
        args.seed = KEPT_SEED if args.loop else RANDOM_SEED
    try:
        rate, offload, tiling = check_fps(args.fps), check_offload(args.offload), check_tiling(args.tiling)
        if args.boundary is not None:
            check_boundary(args.boundary)
        for text in args.lora:
            lora_option.parse(text)
        settings = _settings(args, FLF2V, args.seed)
    except InputError as error:
        args.parser.error(str(error))
    return settings.with_seed(), rate, offload, tiling


def _settings(args: argparse.Namespace, recipe: Recipe, seed: int) -> Settings:
    """What was asked for, and the model's own values where nothing was."""
    return Settings.of(
        recipe,
        negative_prompt=args.negative,
        width=args.width,
        height=args.height,
        length=args.length,
        seed=seed,
        steps=args.steps,
        guidance=args.guidance,
        low_noise_guidance=args.low_guidance,
        shift=args.shift,
        sampler=args.sampler,
        fit=args.fit,
        motion=args.motion,
        longer=longer_option.read(args),
        approximations=speed_options.read(args),
    )


def _check_outputs(args: argparse.Namespace, pixels: int) -> None:
    """Everything that could go wrong at the end goes wrong now instead."""
    from .. import contact_sheet, output, video

    output.check_apart({"--output": args.output, "--sheet": args.sheet}, {"--frames": args.frames})
    video.check_path(args.output, need_bytes=pixels // 4)  # measured: 0.1 byte a pixel for soft images
    if args.frames:
        output.check_new_folder(args.frames, need_bytes=pixels * 3)
    if args.sheet:
        if os.path.realpath(args.sheet) in [os.path.realpath(each.path) for each in keyframe_option.written(args)]:
            raise OutputError(f"{args.sheet} is one of the images; name another file for the contact sheet")
        contact_sheet.check_path(args.sheet)


def _write(
    args: argparse.Namespace,
    pipeline: Pipeline,
    sampled: Sampled,
    given: Mapping[int, Keyframe],
    rate: Fraction,
    bar: ProgressBar,
) -> str:
    """Decode and write everything, the video while decoding goes on; return what is to be said of the images."""
    from .. import contact_sheet, ends, video
    from ..frames import Collected

    total, fit = sampled.grid.frames, sampled.settings.fit
    tags = {video.APPROXIMATIONS: sampled.approximated}
    inputs = {frame: keyframe.images[0] for frame, keyframe in given.items()}
    collected = Collected(total)
    decoded = collected.passing(pipeline.decode_stream(sampled, bar))
    if args.repair is None:
        video.write(_told(decoded, total, bar), args.output, rate, metadata=tags)
        frames = collected.frames
        found = str(ends.report(frames, inputs, fit))
    else:  # what an end asks of all frames is known when the last is decoded
        for _ in decoded:
            pass
        repaired = repair_option.repair(collected.frames, given, args.repair, fit, pipeline, bar)
        frames, found = repaired.frames, str(repaired)
        video.write(frames, args.output, rate, metadata=tags)
    bar(Progress(stage="write", done=total, total=total))
    if args.frames:
        video.write_frames(frames, args.frames)
    if args.sheet:
        contact_sheet.write(frames, inputs, args.sheet, fit=fit)
    return found


def _told(chunks: Iterator[Tensor], total: int, bar: ProgressBar) -> Iterator[Tensor]:
    """The same chunks, and then word that what is left of writing them has begun."""
    yield from chunks
    bar(Progress(stage="write", done=0, total=total))


def _hush_transformers() -> None:
    """It draws bars of its own while it loads; ours is enough."""
    from transformers.utils import logging

    logging.disable_progress_bar()
