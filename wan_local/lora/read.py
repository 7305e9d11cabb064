"""A LoRA file to changes of named parameters, with an account of every name in the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ParameterMismatch, UnreadableWeights, WrongModel
from ..weights.formats import pickled, safetensors_file
from ..weights.source import Entry
from . import keys
from .delta import Delta, Difference, LowRank

SHOWN = 3
DIFFERENCES = (keys.WEIGHT, keys.BIAS, keys.MODULATION)
FOREIGN = ("hada_w", "lokr_w", "oft_", "dora_scale", "lora_magnitude")


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
        UnreadableWeights: missing, broken, or a half of a pair is missing.
        WrongModel: nothing in it fits: another model's, another kind of file, or a kind that can't be used.
        ParameterMismatch: made for a model of another width.
    """
    source = _open(Path(path))
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
    scaling = _Scaling(source.config)
    deltas = {
        parameter: _delta(source, parameter, roles, alphas.get(parameter), scaling)
        for parameter, roles in tensors.items()
    }
    _check_shapes(source, deltas, shapes)
    matched = sum(map(len, tensors.values())) + sum(parameter in tensors for parameter in alphas)
    unmatched += [key for parameter, key in alphas.items() if parameter not in tensors]
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
        stored = None if alpha is None else float(_tensor(source, alpha).item())
        return LowRank(up=up, down=down, scale=scaling.of(parameter, delta.rank, stored))
    if low_rank or difference is None:
        raise UnreadableWeights(
            f"{source.path} has both a LoRA and a difference for {parameter}; use an unmodified file"
        )
    return Difference(tensor=_tensor(source, difference))


def _tensor(source: _Source, key: str) -> Tensor:
    tensor = source.entries[key].read()
    if not tensor.is_floating_point():
        raise UnreadableWeights(f"{source.path}: {key!r} is {tensor.dtype}; use a LoRA in fp16, bf16 or fp32")
    return tensor


class _Scaling:
    """How strongly a pair counts: kohya stores alpha beside it, peft in ``adapter_config.json`` or the metadata."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        flat = {key.removeprefix("transformer."): value for key, value in config.items()}
        alpha = flat.get("lora_alpha")
        self._alpha = float(alpha) if isinstance(alpha, int | float) else None
        self._stabilised = flat.get("use_rslora") is True

    def of(self, parameter: str, rank: int, stored: float | None) -> float:
        alpha = self._alpha if stored is None else stored
        if alpha is None or rank == 0:
            return 1.0
        return alpha / (math.sqrt(rank) if self._stabilised else rank)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _nothing_fits(source: _Source) -> str:
    some = _some(tuple(source.entries))
    foreign = sorted({mark for key in source.entries for mark in FOREIGN if mark in key})
    if foreign:
        return f"{source.path} is not a plain LoRA ({', '.join(foreign)} in {some}); use a LoRA of Wan2.1 14B"
    if not any(keys.split(key) for key in source.entries):
        return f"{source.path} is no LoRA (it holds {some}); use a LoRA of Wan2.1 14B, or a loader for models"
    return f"{source.path} is a LoRA of another model (it holds {some}); use one made for Wan2.1 14B"


def _check_shapes(source: _Source, deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        (name, delta.shape, shapes[name])
        for name, delta in deltas.items()
        if delta.shape != shapes[name] and not _reshapes(delta, shapes[name])
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
