"""Do these tensors fit that model? What is missing or misshapen is an error, what is left over a notice.

Real files carry a tensor or two that belong to no layer: a mark of who made them, a schedule, the parts of a whole
checkpoint. Left out, they change nothing. What stands inside a model's layers is another matter: without it another
network would run than the one that was trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from ..errors import ParameterMismatch, UnreadableWeights, WrongModel
from ..notices import tell
from ..quantised.ggml_codebooks import TABLES, of_package
from ..words import counted
from .names import PREFIXES
from .source import DTYPES, NAMES_SHOWN, TensorSource, listed, same_parameter, shown

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
QUANTISED = ("scaled_fp8", "comfy_quant", "scale_weight", "weight_scale")
LEARNED = (".weight", ".bias", ".gamma", ".modulation")  # what a layer has; others are tables that can be made again


def fitted(source: TensorSource, expected: Mapping[str, tuple[int, ...]]) -> TensorSource:
    """The source with the model's parameters alone; what else it has is told.

    Raises:
        ParameterMismatch, WrongModel: as :func:`check_parameters`.
    """
    if left := check_parameters(source, expected):
        tell(f"{source.path}: {told_left(left)}")
    return replace(source, entries={name: source.entries[name] for name in expected}, extra=())


def told_left(names: tuple[str, ...]) -> str:
    """How tensors that are left over are spoken of."""
    belong, are = ("belongs", "is") if len(names) == 1 else ("belong", "are")
    return f"{counted(len(names), 'tensor')} {belong} to no layer of the model and {are} not used ({listed(names)})"


def check_parameters(source: TensorSource, expected: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names that the source has beside all the expected ones.

    Raises:
        ParameterMismatch: a parameter is missing, misshapen or there twice, or there are layers behind a gap in their
            numbers.
        WrongModel: the model's layers hold layers that it does not have.
    """
    missing = tuple(name for name in expected if name not in source.entries)
    inside = tuple(name for name in source.entries if name not in expected)
    unexpected = (*inside, *source.extra)
    misshapen = tuple(
        (name, source.entries[name].shape, shape)
        for name, shape in expected.items()
        if name in source.entries and source.entries[name].shape != shape
    )
    places = {_place(name) for name in expected}
    behind = [name for name in inside if _place(name) in places]
    if missing or misshapen or behind:
        dots = ", ..." if len(misshapen) > NAMES_SHOWN else ""
        some = misshapen[:NAMES_SHOWN]
        sized = ", ".join(f"{shown(n)} is {shown([*there])}, not {[*here]}" for n, there, here in some)
        counted = [
            f"{len(rows)} {what} ({told})"
            for what, rows, told in (
                ("missing", missing, listed(missing)),
                ("unexpected", unexpected, listed(unexpected)),
                ("misshapen", misshapen, sized + dots),
            )
            if rows
        ]
        gap = "" if missing or misshapen else ", of layers behind a gap"
        raise ParameterMismatch(
            f"{source.path} does not fit the model: parameters {', '.join(counted)}{gap}; it is cut down, or mixed "
            "from several models: download it again, or use another file of this model",
            missing=missing,
            unexpected=unexpected,
            misshapen=misshapen,
        )
    for name in source.extra:
        for bare in (name.removeprefix(prefix) for prefix in PREFIXES):
            if bare != name and bare in expected:
                raise same_parameter(source.path, bare, name)
    stacks = {place[: place.index("#") + 2] for place in places if "#" in place}
    foreign = [n for n in inside if n.endswith(LEARNED) and any(_place(n).startswith(stack) for stack in stacks)]
    if foreign:
        raise WrongModel(
            f"{source.path} is a variant of the model that is not known here: its layers hold parameters beside the "
            f"model's own ({listed(foreign)}), without which it would be another; use the file of the model itself"
        )
    return unexpected


def check_dtypes(source: TensorSource) -> None:
    """Raise :class:`UnreadableWeights` for weights that are neither plain numbers nor packed in a known way."""
    marks = [name for name in source.entries if name.rsplit(".", 1)[-1] in QUANTISED]
    others = [
        name
        for name, entry in source.entries.items()
        if entry.packing is None and DTYPES.get(entry.dtype) not in FLOATS
    ]
    if marks or others:
        told = shown(marks[0]) if marks else f"{shown(others[0])} is {shown(source.entries[others[0]].dtype)}"
        raise UnreadableWeights(
            f"{source.path} is quantised in a way not known here ({told}); use the fp8, GGUF, bf16 or fp16 file of "
            "this model"
        )
    for kind in sorted({entry.dtype for entry in source.entries.values()} & TABLES.keys()):
        try:
            of_package(kind)
        except UnreadableWeights as error:
            raise UnreadableWeights(f"{source.path}: {error}") from error


def _place(name: str) -> str:
    """A name without the numbers of layers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)
