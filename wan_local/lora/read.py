"""A LoRA file to changes of named parameters, with an account of every name in the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ParameterMismatch, UnreadableWeights, WrongModel
from ..weights.formats import pickled, safetensors_file
from ..weights.source import Entry
from ..words import counted
from . import keys
from .assemble import Parts, assemble
from .delta import Delta, Difference, Replacement
from .scaling import Scaling

SHOWN = 3
PATCH = "patch_embedding."  # has other sides in text-to-video models, which are alike otherwise


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
    deltas: Mapping[str, Delta] = field(repr=False)
    matched: int
    unmatched: tuple[str, ...]

    def report(self) -> str:
        """One line: what is used and what is not."""
        tensors = f"{counted(self.matched, 'tensor')} change{'s' * (self.matched == 1)}"
        line = f"{Path(self.path).name}: {tensors} {counted(len(self.deltas), 'parameter')}"
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
        WrongModel: nothing in it fits: another model's, or another kind of file. Or a layer of this model is changed in
            a way that can't be used: a part of it alone would be another change.
        ParameterMismatch: made for a model of another width.
    """
    source = _open(Path(path))
    names = keys.Names(shapes)
    tensors: dict[str, dict[str, str]] = {}  # parameter -> role -> key
    layers: dict[str, list[str]] = {}  # parameter -> what peft may have called its layer
    alphas: dict[str, str] = {}
    unmatched: list[str] = []
    unusable: list[str] = []
    for key in source.entries:
        parts = keys.split(key)
        parameter = names.parameter(*parts) if parts else None
        if parts is None or parameter is None:
            (unmatched if names.layer(key) is None else unusable).append(key)
        elif parts[1] == keys.ALPHA:
            alphas[parameter] = key
        else:
            roles = tensors.setdefault(parameter, {})
            if parts[1] in roles:
                raise UnreadableWeights(
                    f"{source.path} says twice what to do with {parameter}: {roles[parts[1]]!r} and {key!r}; "
                    "save it again with its tool"
                )
            roles[parts[1]] = key
            layers[parameter] = keys.without_prefix(parts[0])
    if unusable and (tensors or not any(map(names.is_whole, unusable))):
        raise WrongModel(_not_usable(source, tuple(unusable)))
    if not tensors:
        raise WrongModel(_nothing_fits(source))
    scaling = Scaling(source.path, source.config)
    factors: dict[str, float] = {}

    def scale(parameter: str, rank: int | None) -> float:
        pair = parameter.removesuffix("bias") + "weight"
        if parameter.endswith(".bias") and pair in factors:  # a bias beside peft's matrices is scaled as they are
            return factors[pair]
        stored = _number(source, alphas[parameter]) if parameter in alphas else None
        factors[parameter] = scaling.of(layers[parameter], rank, stored)
        return factors[parameter]

    def read_tensor(key: str) -> Tensor:
        return _tensor(source, key)

    deltas: dict[str, Delta] = {}
    for parameter, roles in sorted(tensors.items(), key=lambda item: item[0].endswith(".bias")):
        factor = partial(scale, parameter)
        deltas[parameter] = assemble(
            Parts(path=source.path, parameter=parameter, roles=roles, tensor=read_tensor, scale=factor)
        )
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
    config: Mapping[str, object]  # peft's, from the file's metadata or from beside it; else empty


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
        raise UnreadableWeights(f"{source.path}: {key!r} is {there}, not one number; save it again with its tool")
    return value


def _json(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _not_usable(source: _Source, found: tuple[str, ...]) -> str:
    return (
        f"{source.path} changes layers of this model in a way that can't be used: {len(found)} of "
        f"{counted(len(source.entries), 'tensor')} ({_some(found)}); LoRA, LoHa, LoKr, GLoRA, DoRA and differences "
        "can, so merge it into the weights with the tool that made it, or extract a LoRA from what it merged"
    )


def _nothing_fits(source: _Source) -> str:
    some = _some(tuple(source.entries))
    if not any(keys.split(key) for key in source.entries):
        return f"{source.path} is no LoRA (it holds {some}); a LoRA of Wan2.1 14B is wanted here"
    return f"{source.path} is a LoRA of another model (it holds {some}); use one made for Wan2.1 14B"


def _of_another_model(deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Changes of the first layer, if they are all that doesn't fit: a LoRA of a text-to-video model."""
    wrong = [name for name, delta in deltas.items() if not _fits(delta, shapes[name])]
    return wrong if len(wrong) < len(deltas) and all(name.startswith(PATCH) for name in wrong) else []


def _fits(delta: Delta, shape: tuple[int, ...]) -> bool:
    return delta.shape == shape or _reshapes(delta, shape)


def _shaped(delta: Delta, shape: tuple[int, ...]) -> Delta:
    if isinstance(delta, Difference | Replacement):
        return replace(delta, tensor=delta.tensor.reshape(shape))
    return delta


def _check_shapes(source: _Source, deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [(name, delta.shape, shapes[name]) for name, delta in deltas.items() if not _fits(delta, shapes[name])]
    if wrong:
        sized = [f"{name} is {list(there)}, not {list(here)}" for name, there, here in wrong]
        raise ParameterMismatch(
            f"{source.path} was made for a model of another size: no place for {len(wrong)} of "
            f"{counted(len(deltas), 'change')} ({_some(tuple(sized))}); use a LoRA of this model",
            misshapen=tuple(wrong),
        )


def _reshapes(delta: Delta, shape: tuple[int, ...]) -> bool:
    """A convolution's change is sometimes stored as a matrix, a modulation's without its leading 1."""
    return math.prod(delta.shape) == math.prod(shape) and delta.shape[:1] in (shape[:1], shape[1:2])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
