"""A LoRA file to changes of named parameters, with an account of every name in the file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterMismatch, UnreadableWeights, WrongModel
from ..weights.formats import pickled, safetensors_file
from ..weights.source import Entry
from . import keys
from .delta import Delta, Difference, LowRank

SHOWN = 3
DIFFERENCES = (keys.WEIGHT, keys.BIAS, keys.MODULATION)
PATCH = "patch_embedding."  # has other sides in text-to-video models, which are alike otherwise
FOREIGN = (  # how a part of a name begins that belongs to another kind of adapter, which a LoRA's part alone is not
    ("DoRA", ("dora_scale", "lora_magnitude_vector")),
    ("LoHa", ("hada_w", "hada_t")),
    ("LoKr", ("lokr_",)),
    ("OFT", ("oft_", "boft_")),
    ("norms of LyCORIS", ("w_norm", "b_norm")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """What one LoRA file changes.

    Attributes:
        path: of the file.
        deltas: official parameter name to its change.
        matched: how many tensors of the file are used.
        unmatched: names in the file that the model has nothing for.
    """

    path: str
    deltas: Mapping[str, Delta]
    matched: int
    unmatched: tuple[str, ...]

    def report(self) -> str:
        """One line: what is used and what is not."""
        line = f"{Path(self.path).name}: {self.matched} tensors change {len(self.deltas)} parameters"
        if self.unmatched:
            line += f"; {len(self.unmatched)} not used ({_some(self.unmatched)})"
        return line


def read(path: str | PathLike[str], shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """Read a LoRA for a model with these parameters.

    Args:
        path: a safetensors (or ``.pth``) file, or peft's folder of ``adapter_model.safetensors``.
        shapes: official parameter name to shape, of the model.

    Raises:
        UnreadableWeights: missing, broken, a half of a pair is missing, or values that are no numbers.
        WrongModel: nothing in it fits: another model's, or another kind of file. Or any part of it is of a kind that
            can't be used, such as DoRA.
        ParameterMismatch: made for a model of another width.
    """
    source = _open(Path(path))
    _check_kind(source)
    names = keys.Names(shapes)
    tensors: dict[str, dict[str, str]] = {}  # parameter -> role -> key
    unmatched, alphas = [], {}
    for key in source.entries:
        parts = keys.split(key)
        parameter = names.parameter(*parts) if parts else None
        if parts is None or parameter is None:
            unmatched.append(key)
        elif parts[1] == keys.ALPHA:
            alphas[parameter] = key
        else:
            roles = tensors.setdefault(parameter, {})
            if parts[1] in roles:
                raise UnreadableWeights(
                    f"{source.path} says twice what to do with {parameter}: {roles[parts[1]]!r} and {key!r}; "
                    "use an unmodified file"
                )
            roles[parts[1]] = key
    if not tensors:
        raise WrongModel(_nothing_fits(source))
    scaling = _Scaling(source)
    deltas = {
        parameter: _delta(source, parameter, roles, alphas.get(parameter), scaling)
        for parameter, roles in tensors.items()
    }
    for parameter in _of_another_model(deltas, shapes):
        del deltas[parameter]
        unmatched += tensors.pop(parameter).values()
    _check_shapes(source, deltas, shapes)
    matched = sum(map(len, tensors.values())) + sum(parameter in tensors for parameter in alphas)
    unmatched += [key for parameter, key in alphas.items() if parameter not in tensors]
    deltas = {name: _shaped(delta, shapes[name]) for name, delta in deltas.items()}
    return Lora(path=source.path, deltas=deltas, matched=matched, unmatched=tuple(unmatched))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    path: str
    entries: Mapping[str, Entry]
    config: Mapping[str, Any]  # peft's, from the file's metadata or from beside it; else empty


def _open(path: Path) -> _Source:
    if path.is_dir():
        path = path / "adapter_model.safetensors"
    if not path.is_file():
        raise UnreadableWeights(f"{path} is not there; check the path of the LoRA")
    metadata: dict[str, str] = {}
    if pickled.looks_like(path):
        entries = pickled.read_entries(path)
    else:
        entries, metadata = safetensors_file.read_header(path)
    beside = path.parent / "adapter_config.json"
    if path.name == "adapter_model.safetensors" and beside.is_file():
        config = _json(beside.read_text("utf-8", errors="replace"))
    else:
        config = _json(metadata.get("lora_adapter_metadata", "{}"))
    return _Source(path=str(path), entries=entries, config=config)


def _delta(source: _Source, parameter: str, roles: dict[str, str], alpha: str | None, scaling: _Scaling) -> Delta:
    """One change out of the tensors about one parameter."""
    if keys.MIDDLE in roles:
        raise UnreadableWeights(f"{source.path} has a Tucker core ({roles[keys.MIDDLE]!r}); use a plain LoRA")
    low_rank = [role for role in (keys.UP, keys.DOWN) if role in roles]
    difference = next((roles[role] for role in DIFFERENCES if role in roles), None)
    if low_rank and difference is None:
        if len(low_rank) == 1:
            raise UnreadableWeights(
                f"{source.path} has {roles[low_rank[0]]!r} without its other half; use a complete file"
            )
        up, down = (_tensor(source, roles[role]) for role in (keys.UP, keys.DOWN))
        delta = LowRank(up=up, down=down, scale=1.0)
        if not delta.fits_together:
            raise UnreadableWeights(
                f"{source.path}: {roles[keys.UP]!r} is {list(up.shape)} and {roles[keys.DOWN]!r} {list(down.shape)}, "
                "which can't be multiplied; use an unmodified file"
            )
        stored = None if alpha is None else _number(source, alpha)
        return LowRank(up=up, down=down, scale=scaling.of(roles[keys.UP], delta.rank, stored))
    if low_rank or difference is None:
        raise UnreadableWeights(
            f"{source.path} has both a LoRA and a difference for {parameter}; use an unmodified file"
        )
    return Difference(tensor=_tensor(source, difference))


def _tensor(source: _Source, key: str) -> Tensor:
    tensor = source.entries[key].read()
    if not tensor.is_floating_point():
        raise UnreadableWeights(f"{source.path}: {key!r} is {tensor.dtype}; use a LoRA in fp16, bf16 or fp32")
    numbers = tensor.float() if tensor.itemsize == 1 else tensor
    if not torch.isfinite(numbers).all():
        raise UnreadableWeights(f"{source.path}: {key!r} has NaN or infinity in it; use a whole, sound file")
    return tensor


def _number(source: _Source, key: str) -> float:
    """An alpha, which some trainers write as a whole number."""
    entry = source.entries[key]
    tensor = entry.read() if entry.size == 1 else None
    value = math.nan if tensor is None or tensor.is_complex() else float(tensor.item())
    if not math.isfinite(value):
        there = f"of shape {[*entry.shape]}" if tensor is None else str(tensor.flatten()[0].item())
        raise UnreadableWeights(f"{source.path}: {key!r} is {there}, not one number; use an unmodified file")
    return value


class _Scaling:
    """How strongly a pair counts: kohya stores alpha beside it, peft in ``adapter_config.json`` or the metadata."""

    def __init__(self, source: _Source) -> None:
        flat = {key.removeprefix("transformer."): value for key, value in source.config.items()}
        alpha = flat.get("lora_alpha")
        self._alpha = float(alpha) if isinstance(alpha, int | float) else None
        self._stabilised = flat.get("use_rslora") is True
        self._patterns: dict[str, float] = {}
        patterns = flat.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            # peft takes any regular expression; one out of a file could keep us busy for ever.
            if not re.fullmatch(r"[\w.-]+", pattern) or not isinstance(value, int | float):
                raise UnreadableWeights(
                    f"{source.path} has the alpha_pattern {pattern!r}: {value!r}, which can't be used here; give it "
                    "names of layers, or store alpha beside the matrices"
                )
            self._patterns[pattern] = float(value)

    def of(self, key: str, rank: int, stored: float | None) -> float:
        """For the pair with this name in the file."""
        alpha = self._said(key) if stored is None else stored
        if alpha is None or rank == 0:
            return 1.0
        return alpha / (math.sqrt(rank) if self._stabilised else rank)

    def _said(self, key: str) -> float | None:
        parts = keys.split(key)
        name = "." + (parts[0] if parts else key)
        return next((alpha for end, alpha in self._patterns.items() if name.endswith("." + end)), self._alpha)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_kind(source: _Source) -> None:
    """Raise :class:`WrongModel` for an adapter of another kind: its LoRA part alone would be something else."""
    for kind, marks in FOREIGN:
        found = tuple(key for key in source.entries if any(part.startswith(marks) for part in key.split(".")))
        if found:
            raise WrongModel(
                f"{source.path} is not a plain LoRA: it has {kind} in {len(found)} of {len(source.entries)} tensors "
                f"({_some(found)}); use a plain LoRA of Wan2.1 14B"
            )


def _nothing_fits(source: _Source) -> str:
    some = _some(tuple(source.entries))
    if not any(keys.split(key) for key in source.entries):
        return f"{source.path} is no LoRA (it holds {some}); use a LoRA of Wan2.1 14B, or a loader for models"
    return f"{source.path} is a LoRA of another model (it holds {some}); use one made for Wan2.1 14B"


def _of_another_model(deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Changes of the first layer, if they are all that doesn't fit: a LoRA of a text-to-video model."""
    wrong = [name for name, delta in deltas.items() if not _fits(delta, shapes[name])]
    return wrong if len(wrong) < len(deltas) and all(name.startswith(PATCH) for name in wrong) else []


def _fits(delta: Delta, shape: tuple[int, ...]) -> bool:
    return delta.shape == shape or _reshapes(delta, shape)


def _shaped(delta: Delta, shape: tuple[int, ...]) -> Delta:
    return replace(delta, tensor=delta.tensor.reshape(shape)) if isinstance(delta, Difference) else delta


def _check_shapes(source: _Source, deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        (name, delta.shape, shapes[name])
        for name, delta in deltas.items()
        if not _fits(delta, shapes[name])
    ]
    if wrong:
        sized = [f"{name} is {list(there)}, not {list(here)}" for name, there, here in wrong]
        raise ParameterMismatch(
            f"{source.path} was made for a model of another size: {len(wrong)} of {len(deltas)} changes do not fit "
            f"({_some(tuple(sized))}); use a LoRA of this model",
            misshapen=tuple(wrong),
        )


def _reshapes(delta: Delta, shape: tuple[int, ...]) -> bool:
    """A convolution's change is sometimes stored as a matrix, a modulation's without its leading 1."""
    return math.prod(delta.shape) == math.prod(shape) and delta.shape[:1] in (shape[:1], shape[1:2])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
