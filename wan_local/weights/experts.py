"""Wan2.2's pair of experts: two transformers of one kind, one for high noise and one for low.

Keys and shapes are the same in both, so which is which is told from where they lie: the official folder's
``high_noise_model/`` and ``low_noise_model/``, diffusers' ``transformer/`` (high) and ``transformer_2/`` (low), or the
files' names. Where a person names both, what they say counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, WrongModel
from ..notices import tell
from ..sampling.schedule import TRAIN_TIMESTEPS
from ..settings import BOUNDARY, check_boundary
from .formats.folder import files, read_json
from .load import AnyPath, transformer_source
from .source import TensorSource

OFFICIAL = ("high_noise_model", "low_noise_model")
DIFFUSERS = ("transformer", "transformer_2")
HIGH, LOW = "high", "low"
OTHER = {HIGH: LOW, LOW: HIGH}
SINGLE = (".safetensors", ".gguf")  # endings of files that hold an expert
LEVEL = re.compile(r"(?<![a-z])(high|low)(?=[_\- ]?noise|(?![a-z]))", re.IGNORECASE)
TOLD_BY = "blocks.0.modulation"  # small, and never the same in two models that were trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Where two experts lie.

    Attributes:
        high, low: file or folder of each.
        boundary: share of the timesteps, 0..1, from which on the high-noise expert works.
    """

    high: Path
    low: Path
    boundary: float = BOUNDARY

    @property
    def folder(self) -> Path | None:
        """The model folder that both lie in, and the other parts too; None for two files."""
        parent = self.high.parent
        return parent if self.high.is_dir() and self.low.parent == parent else None

    @property
    def timestep(self) -> float:
        """The first timestep of the high-noise expert, of 0..1000."""
        return timestep_of(self.boundary)


def timestep_of(boundary: float) -> float:
    """The timestep of 0..1000 from which on the high-noise expert works."""
    return TRAIN_TIMESTEPS * boundary


def find_pair(path: AnyPath, low: AnyPath | None = None, boundary: float | None = None) -> Pair | None:
    """The two experts of a model; None where it is one transformer.

    Args:
        path: a model folder, a folder with the two files and no others, or the file or folder of the high-noise
            expert (of either, if the other lies beside it under the name that says so).
        low: file or folder of the low-noise expert.
        boundary: 0..1; None takes the folder's own, else 0.9.

    Raises:
        InputError: a boundary outside 0..1 or without a pair, or the same expert twice.
    """
    place = Path(path)
    if boundary is not None:
        check_boundary(boundary)
    own: float | None = None  # what a folder says itself
    if low is not None:
        both = place, Path(low)
        _check_names(*both)
    elif all((place / name).is_dir() for name in OFFICIAL):
        both = place / OFFICIAL[0], place / OFFICIAL[1]
    elif all((place / name).is_dir() for name in DIFFUSERS):
        both = place / DIFFUSERS[0], place / DIFFUSERS[1]
        own = _own_boundary(place)
    elif (single := _two_files(place)) is not None:
        both = single
    elif (beside := _beside(place)) is not None:
        both = (place, beside) if _own_level(place) == HIGH else (beside, place)
        tell(f"{beside.name} lies beside {place.name} and is taken as the other of Wan2.2's two experts")
    elif boundary is not None:
        raise InputError(f"boundary={boundary:g} needs two experts and {place} is one; give the low-noise one too")
    else:
        return None
    chosen = next(value for value in (boundary, own, BOUNDARY) if value is not None)
    return Pair(high=both[0], low=both[1], boundary=chosen)


def level_of(path: AnyPath) -> str | None:
    """``"high"`` or ``"low"``, as the name of a file or of its folder says; None where neither says one of them."""
    return _own_level(Path(path)) or _own_level(Path(path).parent)


def _own_level(path: Path) -> str | None:
    levels = {match.lower() for match in LEVEL.findall(path.name)}
    return levels.pop() if len(levels) == 1 else None


def check_pair(high: TensorSource, low: TensorSource) -> None:
    """Make sure that two opened transformers are the two experts of one model.

    Raises:
        WrongModel: the same weights twice, other sizes, or a model with an image branch among them.
    """
    from .sizes import transformer_config

    sizes = [transformer_config(source) for source in (high, low)]
    for config, source in zip(sizes, (high, low), strict=True):
        if not config.is_expert:
            kind = "has an image branch" if config.has_image_branch else "takes no first and last frame"
            raise WrongModel(f"{source.path} is no expert of Wan2.2: it {kind}; give an I2V-A14B file")
    if sizes[0] != sizes[1]:
        raise WrongModel(
            f"{high.path} and {low.path} are of different sizes ({sizes[0].dim} and {sizes[1].dim} wide, "
            f"{sizes[0].num_layers} and {sizes[1].num_layers} blocks); take both experts of one release"
        )
    if same_weights(*(source.entries[TOLD_BY].read() for source in (high, low))):
        raise WrongModel(
            f"{high.path} and {low.path} hold the same weights; give one high-noise and one low-noise file"
        )


def open_pair(pair: Pair) -> tuple[TensorSource, TensorSource]:
    """Both transformers, opened and checked; their tensors stay where they are.

    Raises:
        WeightsError: as :func:`wan_local.weights.load.transformer_source` and :func:`check_pair`.
    """
    high, low = transformer_source(pair.high), transformer_source(pair.low)
    check_pair(high, low)
    return high, low


def same_weights(first: Tensor, second: Tensor) -> bool:
    """Whether two models' :data:`TOLD_BY` are of the same weights, as they are stored."""
    return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())


def _check_names(high: Path, low: Path) -> None:
    if high.resolve() == low.resolve():
        raise InputError(f"{high} is given for both experts; give one high-noise and one low-noise file")
    # The name of a folder that both lie in tells neither from the other.
    level = level_of if high.parent != low.parent else _own_level
    said = level(high), level(low)
    if said == (LOW, HIGH):
        tell(
            f"{high.name} is used for high noise and {low.name} for low noise, and their names say otherwise; "
            "a swapped pair gives a poor clip"
        )
    elif said[0] is not None and said[0] == said[1]:
        raise InputError(
            f"{high.name} and {low.name} are both {said[0]}-noise experts by their names; give one of each"
        )


def _own_boundary(folder: Path) -> float | None:
    found = read_json(folder / "model_index.json").get("boundary_ratio")
    return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else None


def _two_files(place: Path) -> tuple[Path, Path] | None:
    """The high-noise and the low-noise file of a folder that has no other weights."""
    weights = [path for suffix in SINGLE for path in files(place, f"*{suffix}")]
    if len(weights) != 2 or not _are_alike(*weights):
        return None
    high = weights[0] if _own_level(weights[0]) == HIGH else weights[1]
    return high, weights[1 - weights.index(high)]


def _beside(place: Path) -> Path | None:
    """The one other file or folder that has the same name but for high and low."""
    if not place.parent.is_dir():
        return None
    found = [other for other in place.parent.iterdir() if _are_alike(place, other)]
    return found[0] if len(found) == 1 else None


def _are_alike(one: Path, other: Path) -> bool:
    """Whether one name says high, the other low, and all else of them is the same."""
    own = _own_level(one)
    if own is None or _own_level(other) != OTHER[own]:
        return False
    return LEVEL.sub("", one.name).lower() == LEVEL.sub("", other.name).lower()
