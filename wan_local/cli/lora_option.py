"""``--lora FILE[:STRENGTH][@high or @low][@FIRST-LAST]``: what a person writes, and what is said about it."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..notices import tell

if TYPE_CHECKING:
    from ..config import TransformerConfig
    from ..lora import Lora, Use

HELP = (
    "a LoRA; several add up. STRENGTH is 1 unless said, FIRST-LAST the sampling steps it counts in (from 1, all unless "
    "said). @high or @low puts it on one of Wan2.2's experts; else its name decides, and one that names neither goes "
    "on both. Merged into plain weights; beside packed ones, those of --offload, and where steps are said (one GPU "
    "alone)"
)
STEPS = re.compile(r"@(\d+)-(\d*)$")
EXPERT = re.compile(r"@(high|low)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One of them.

    Attributes:
        path: of the file.
        strength, first, last: as in :class:`wan_local.lora.Use`; ``last`` None is the end.
        expert: the one it is put on, of two; None where nothing says which.
    """

    path: str
    strength: float = 1.0
    first: int = 1
    last: int | None = None
    expert: str | None = None


def read(args: argparse.Namespace) -> list[tuple[Use, str]]:
    """The LoRAs that were asked for, for the pipeline that will be loaded, each with a line about it.

    The model is known from its headers: what is wrong is told before its weights are read.

    Raises:
        InputError: strengths or steps that can't be.
        WeightsError: a file that can't be used, or no model.
    """
    if not args.lora:
        return []
    from .. import lora, notices
    from ..weights import load, sizes
    from ..weights.experts import find_pair

    with notices.listening(lambda text: None):  # told when they are loaded
        pair = find_pair(args.model, args.model_low, args.boundary)
        config = sizes.transformer_config(load.transformer_source(args.model if pair is None else pair.high))
    shapes, found = parameter_shapes_of(config), []
    for text in args.lora:
        option = parse(text)
        expert = expert_of(option, text, pair is not None)
        use = lora.Use(
            lora=lora.read(option.path, shapes), strength=option.strength, first_step=option.first,
            last_step=option.last, expert=expert,
        )  # fmt: skip
        steps = "" if use.always else f", steps {option.first} to {option.last or 'the end'}"
        on = "" if pair is None else f", on the {expert}-noise expert" if expert else ", on both experts"
        found.append((use, told(use.lora, option.strength) + on + steps))
    return found


def parameter_shapes_of(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Official parameter name to shape, of a transformer of these sizes."""
    import torch

    from ..model import WanTransformer
    from ..quantised import parameter_shapes

    with torch.device("meta"):
        return parameter_shapes(WanTransformer(config))


def expert_of(option: Option, text: str, pair: bool) -> str | None:
    """Which of two experts a LoRA goes on; None is both.

    Raises:
        InputError: an expert of a model that has none.
    """
    from ..weights.experts import level_of

    if not pair and option.expert is not None:
        raise InputError(f"--lora {text} is for one of two experts and this model has one transformer; leave it out")
    if not pair:
        return None
    said = level_of(option.path)
    if option.expert is not None and said is not None and said != option.expert:
        tell(f"--lora {text} is {said}-noise by its name and goes on the {option.expert}-noise expert, as asked for")
    return option.expert or said


def told(lora: Lora, strength: float) -> str:
    """The line about one."""
    return f"LoRA {lora.report()}, strength {strength:g}"


def parse(text: str) -> Option:
    """One option, as written."""
    rest, first, last, expert = text, 1, None, None
    if found := STEPS.search(rest):
        rest, first, last = rest[: found.start()], int(found[1]), int(found[2]) if found[2] else None
        if first < 1 or (last is not None and last < first):
            raise InputError(f"--lora {text} counts in steps {found[0][1:]}; give steps from 1, such as @1-2 or @3-")
    if found := EXPERT.search(rest):
        rest, expert = rest[: found.start()], found[1]
    path, colon, number = rest.rpartition(":")
    try:
        strength = float(number) if colon else 1.0
    except ValueError:  # a path with a colon in it
        path, colon, strength = rest, "", 1.0
    if not math.isfinite(strength):
        raise InputError(f"--lora {text} has strength {number}; give a number such as 0.8")
    return Option(path=path if colon else rest, strength=strength, first=first, last=last, expert=expert)
