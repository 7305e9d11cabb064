"""``--gpus`` and what belongs to it."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from ..settings import BOUNDARY
from ..words import counted
from .lora_option import expert_of, parameter_shapes_of, parse, told

if TYPE_CHECKING:
    import torch

    from ..parallel.group_model import GroupTransformer

CFG = {"auto": 0, "on": 2, "off": 1}
ONE_FOR_ALL = ("auto", "cpu", "cuda", "cuda:0")


def add_to(group: argparse._ArgumentGroup) -> None:
    """The options."""
    group.add_argument("--gpus", type=int, default=1, metavar="N", help="sample on so many GPUs at once (default: 1)")
    group.add_argument("--ulysses", type=int, default=0, metavar="N",
                       help="GPUs that share the heads; must divide them (default: chosen)")  # fmt: skip
    group.add_argument("--ring", type=int, default=0, metavar="N",
                       help="GPUs around which keys and values go (default: chosen)")  # fmt: skip
    group.add_argument("--cfg-parallel", choices=tuple(CFG), default="auto",
                       help="prompt and negative prompt at once, on half of the GPUs each")  # fmt: skip
    group.add_argument("--fsdp", action="store_true",
                       help="shard the weights over the GPUs; not for packed files (fp8, int8, fp4, GGUF), not with "
                            "--lora and not with --compile")  # fmt: skip
    group.add_argument("--ray-address", default="", metavar="HOST:PORT",
                       help="head node of a Ray cluster, for GPUs of several machines")  # fmt: skip
    group.add_argument("--sequence-backend", choices=("own", "yunchang", "xfuser"), default="own",
                       help="what carries attention over the GPUs: own (default), or yunchang, which is what xDiT has "
                            "underneath, to be installed. xfuser itself is always refused: from 0.5.0 on it runs with "
                            "no released yunchang, and before that it is yunchang")  # fmt: skip
    group.add_argument("--step-limit", type=float, metavar="SECONDS",
                       help="seconds that a step on several GPUs may take before they count as lost (default: an hour "
                            "for the first, then what steps take); start and load have as long, or more")  # fmt: skip


def wanted(args: argparse.Namespace) -> bool:
    return args.gpus > 1 or bool(args.ray_address)


def check(args: argparse.Namespace) -> None:
    """Wrong use: exit status 2."""
    if args.gpus < 1:
        args.parser.error(f"--gpus {args.gpus} can't be used; use 1 or more")
    chosen = args.cfg_parallel != "auto" or args.sequence_backend != "own" or args.step_limit is not None
    if (args.ulysses or args.ring or args.fsdp or chosen) and not wanted(args):
        args.parser.error(
            "--ulysses, --ring, --cfg-parallel, --fsdp, --sequence-backend and --step-limit need --gpus 2 or more"
        )
    if args.step_limit is not None and not 0 < args.step_limit < math.inf:
        args.parser.error(f"--step-limit {args.step_limit} can't be used; give seconds above 0, such as 3600")
    if wanted(args) and args.device not in ONE_FOR_ALL:
        args.parser.error(
            f"--device {args.device} can't be used with several GPUs, which are the first ones there are; use --device "
            "cuda, and CUDA_VISIBLE_DEVICES to say which those are"
        )
    if wanted(args) and args.offload != "auto":
        args.parser.error(
            f"--offload {args.offload} can't be used with several GPUs, where no block waits in host memory; leave it "
            "out, and use --fsdp where a GPU can't hold the weights"
        )
    for text in args.lora if wanted(args) else ():
        option = parse(text)
        if option.first > 1 or option.last is not None:
            args.parser.error(f"--lora {text} counts in some steps only, which several GPUs can't do; leave steps out")


def transformer(
    args: argparse.Namespace, device: torch.device, dtype: torch.dtype, guidance: float
) -> GroupTransformer:
    """The transformer of these options, on its GPUs; LoRAs on it. The GPUs are given back after the run.

    Raises:
        InputError: a setup that can't be.
        WeightsError: no transformer of this kind, no such LoRA.
    """
    from ..parallel.group_model import GroupTransformer, Setup
    from ..ranks import Pool, step_limit
    from ..weights.experts import HIGH, LOW, find_pair

    pair = find_pair(args.model, args.model_low, args.boundary)
    loras: dict[str, list[tuple[str, float]]] = {HIGH: [], LOW: []}
    for text in args.lora:
        option = parse(text)
        expert = expert_of(option, text, pair is not None)
        for level in loras if expert is None else (expert,):
            loras[level].append((option.path, option.strength))
    setup = Setup(
        path=args.model if pair is None else str(pair.high),
        gpus=args.gpus, ulysses=args.ulysses, ring=args.ring, cfg=CFG[args.cfg_parallel],
        fsdp=args.fsdp, dtype=str(dtype).removeprefix("torch."), unpack=args.unpack,
        float8_matmul=args.fp8_matmul, compiled=args.compile,
        loras=tuple(loras[HIGH]), low="" if pair is None else str(pair.low),
        low_loras=() if pair is None else tuple(loras[LOW]), boundary=BOUNDARY if pair is None else pair.boundary,
        device=device.type, ray_address=args.ray_address, backend=args.sequence_backend,
    )  # fmt: skip
    limits = step_limit(args.step_limit)
    return GroupTransformer(setup, Pool(), before_run=release, guidance=guidance, keep=False, limits=limits)


def release() -> None:
    """Give back what torch keeps of the encoders' work: the ranks are other processes, and use the same GPUs."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def lines(model: GroupTransformer) -> list[str]:
    """What is said about it: the LoRAs that every rank puts on, and the split."""
    from .. import lora
    from ..weights.experts import HIGH, LOW

    shapes = parameter_shapes_of(model.config)
    loras = [
        told(lora.read(path, shapes), strength) + (f", on the {level}-noise expert" if model.setup.low else "")
        for level, (_, given) in zip((HIGH, LOW), model.setup.models, strict=False)
        for path, strength in given
    ]
    return [*loras, f"{counted(model.setup.gpus, 'GPU')}: {model.why}"]
