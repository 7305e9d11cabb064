"""``--lora FILE[:STRENGTH][@FIRST-LAST]``: what a person writes, and what is said about it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..generate import Pipeline
    from ..lora import Lora

HELP = (
    "a LoRA; several add up. STRENGTH is 1 unless said, FIRST-LAST the sampling steps it counts in (from 1, all unless "
    "said). Merged into plain weights; beside packed ones, those of --offload, and where steps are said"
)
STEPS = re.compile(r"@(\d+)-(\d*)$")


def put_on(pipeline: Pipeline, given: list[str]) -> list[str]:
    """Put LoRAs on a pipeline; a line about each.

    Raises:
        InputError: strengths or steps that can't be.
        WeightsError: a file that can't be used.
    """
    from .. import lora
    from ..quantised import parameter_shapes

    if not given:
        return []
    shapes, uses, lines = parameter_shapes(pipeline.transformer), [], []
    for text in given:
        path, strength, first, last = parse(text)
        use = lora.Use(lora=lora.read(path, shapes), strength=strength, first_step=first, last_step=last)
        steps = "" if use.always else f", steps {first} to {last or 'the end'}"
        lines.append(told(use.lora, strength) + steps)
        uses.append(use)
    pipeline.use_loras(uses)
    return lines


def told(lora: Lora, strength: float) -> str:
    """The line about one."""
    return f"LoRA {lora.report()}, strength {strength:g}"


def parse(text: str) -> tuple[str, float, int, int | None]:
    """File, strength, first step and last step (None: the end) of one option."""
    rest, first, last = text, 1, None
    if found := STEPS.search(text):
        rest, first, last = text[: found.start()], int(found[1]), int(found[2]) if found[2] else None
        if first < 1 or (last is not None and last < first):
            raise InputError(f"--lora {text} counts in steps {found[0][1:]}; give steps from 1, such as @1-2 or @3-")
    path, colon, number = rest.rpartition(":")
    try:
        strength = float(number) if colon else 1.0
    except ValueError:  # a path with a colon in it
        return rest, 1.0, first, last
    if not math.isfinite(strength):
        raise InputError(f"--lora {text} has strength {number}; give a number such as 0.8")
    return (path, strength, first, last) if colon else (rest, 1.0, first, last)
